"""One pass over everything whose costs are measured, kept in a file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from benchmarks.cost_chain import Taken
from benchmarks.cost_runs import Run
from robolift import storage

FILES = "pass-*.json"


@dataclass(frozen=True)
class Pass:
    """What was measured.

    Attributes:
        runs: What costs are fitted to.
        checked: What they are held to.
    """

    runs: list[Taken]
    checked: list[Taken]

    def save(self, folder: Path) -> None:
        """Keep it beside the earlier ones."""
        path = folder / FILES.replace("*", str(len(list(folder.glob(FILES)))))
        storage.write_bytes(str(path), storage.to_json_bytes(dataclasses.asdict(self)))

    @classmethod
    def load_all(cls, folder: Path) -> list[Self]:
        """Return all that were kept."""
        found = [storage.read_json(str(path)) for path in sorted(folder.glob(FILES))]
        return [cls(_taken(one["runs"]), _taken(one["checked"])) for one in found]


def _taken(runs: Sequence[Mapping[str, Any]]) -> list[Taken]:
    return [Taken(**{**run, "run": Run(**run["run"])}) for run in runs]
