"""A recording that says nothing of control, kind and outcome: to add to, and to see what the import makes of it."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
import synthetic
from synthetic import change_info, change_rows

from robolift.errors import DataError
from robolift.manifest import Manifest
from robolift.stages.stage import execute

CONTROL = ("control_mode", "intervention")


def write_bare(path: Path) -> Path:
    """Write four episodes in v2.1."""
    synthetic.write_recording(path, episodes=4, version="v2.1", cameras=[], omit=CONTROL, extra=False)
    return path


def add_column(path: Path, name: str, values: dict[int, list], dtype: str = "int64") -> None:
    """Give each episode a column: values by episode, or zeros."""
    kind = {"string": pa.string(), "bool": pa.bool_()}.get(dtype) or getattr(pa, dtype)()
    for episode in range(4):
        change_rows(
            path,
            episode,
            lambda table, e=episode: table.append_column(name, pa.array(values.get(e, [0] * table.num_rows), kind)),
        )
    change_info(path, lambda info: info["features"].update({name: {"dtype": dtype, "shape": [1], "names": None}}))


def lengths(path: Path) -> list[int]:
    rows = (path / "meta/episodes.jsonl").read_text().splitlines()
    return [json.loads(row)["length"] for row in rows]


def import_it(path: Path, **config) -> Manifest:
    return execute("import_dataset", {"dataset_uri": str(path), **config}, {}, str(path.parent / "runs"))


def refused(path: Path, **config) -> str:
    with pytest.raises(DataError) as caught:
        import_it(path, **config)
    return str(caught.value)


def kinds_and_outcomes(found: Manifest) -> list[tuple[str, str]]:
    table = found.table("episodes")
    return list(zip(table.column("kind").to_pylist(), table.column("outcome").to_pylist(), strict=True))


def modes(found: Manifest, episode: int) -> list[str]:
    table = found.table("frames")
    return table.filter(pa.compute.equal(table.column("episode_index"), episode)).column("control_mode").to_pylist()
