"""One pass over everything whose costs are measured, kept in a file, and several of them together."""

from __future__ import annotations

import dataclasses
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from benchmarks.cost_chain import Taken
from benchmarks.cost_runs import Run
from robolift import storage
from robolift.planner.costs import Counts

FILES = "pass-*.json"


@dataclass(frozen=True)
class Pass:
    """What was measured.

    Attributes:
        runs: Of stages, that costs are fitted to.
        decoding: What was decoded, and the CPU seconds of it.
        reading: Which packed pictures were read, and the CPU seconds of it.
        checked: Runs of stages that costs are held to.
    """

    runs: list[Taken]
    decoding: list[tuple[Counts, float]]
    reading: list[tuple[Counts, float]]
    checked: list[Taken]

    @classmethod
    def together(cls, passes: Sequence[Self]) -> Self:
        """Return passes as one: all their runs, and of the rest the medians."""
        return cls(
            [run for one in passes for run in one.runs],
            _medians([number for one in passes for number in one.decoding]),
            _medians([number for one in passes for number in one.reading]),
            [run for one in passes for run in one.checked],
        )

    def save(self, folder: Path) -> None:
        """Keep it beside the earlier ones."""
        path = folder / FILES.replace("*", str(len(list(folder.glob(FILES)))))
        storage.write_bytes(str(path), storage.to_json_bytes(dataclasses.asdict(self)))

    @classmethod
    def load_all(cls, folder: Path) -> list[Self]:
        """Return all that were kept."""
        found = [storage.read_json(str(path)) for path in sorted(folder.glob(FILES))]
        return [
            cls(
                _taken(one["runs"]),
                [(counts, number) for counts, number in one["decoding"]],
                [(counts, number) for counts, number in one["reading"]],
                _taken(one["checked"]),
            )
            for one in found
        ]


def _taken(runs: Sequence[Mapping[str, Any]]) -> list[Taken]:
    return [Taken(**{**run, "run": Run(**run["run"])}) for run in runs]


def _medians(numbers: Sequence[tuple[Counts, float]]) -> list[tuple[Counts, float]]:
    same = defaultdict(list)
    for counts, number in numbers:
        same[tuple(sorted(counts.items()))].append(number)
    return [(dict(counts), statistics.median(found)) for counts, found in same.items()]
