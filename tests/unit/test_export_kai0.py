"""What kai0's eval.py would have written: its three columns, in the dataset or in a folder beside its rows."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import synthetic
from labelled import publish_values
from synthetic import TOPVIEW, change_info, change_rows

from robolift import storage
from robolift.data.lerobot import LeRobotReader
from robolift.errors import DataError, UsageError
from robolift.manifest import Manifest
from robolift.stages.stage import execute

FOLDER = "data_KAI0_100000"
NAMES = ["relative_advantage", "absolute_value", "absolute_advantage"]
LOOKAHEAD = 4


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four episodes in v2.1, with one camera."""
    path = tmp_path_factory.mktemp("recording") / "v21"
    synthetic.write_recording(path, episodes=4, version="v2.1", cameras=[TOPVIEW])
    return path


def predicted(root: str, dataset: Manifest, *, two_frames: bool) -> Manifest:
    """Publish values: frame n of the whole has sin(n) and, of a two-frame model, the relative advantage cos(n)."""
    count = np.arange(dataset.counts["frames"])
    return publish_values(root, dataset, np.sin(count), relative=np.cos(count) if two_frames else None)


def export(root: str, source: Path, *, two_frames: bool = True, **config: Any) -> tuple[Manifest, Path]:
    dataset = execute("import_dataset", {"dataset_uri": str(source), "check_videos": "none"}, {}, root)
    values = predicted(root, dataset, two_frames=two_frames)
    given = {"columns": ["kai0_values"], "lookahead": LOOKAHEAD, **config}
    made = execute("export_dataset", given, {"dataset": dataset.uri, "values": values.uri}, root)
    return made, Path(str(storage.local_path(made.uri))) / "dataset"


def rows(folder: Path) -> list[pa.Table]:
    return [pq.read_table(file) for file in sorted(folder.glob("chunk-*/episode_*.parquet"))]


def expected(tables: list[pa.Table]) -> dict[str, np.ndarray]:
    """kai0's loop over the frames of each episode, on the same values."""
    found: dict[str, list[float]] = {name: [] for name in NAMES}
    first = 0
    for table in tables:
        value = np.sin(np.arange(first, first + len(table))).astype(np.float32).astype(np.float64)
        last = len(table) - 1
        for n in range(len(table)):
            m = min(n + LOOKAHEAD, last)
            rise = (value[m] - value[n]) / (m - n) * LOOKAHEAD if m > n else 0.0
            found["relative_advantage"].append(float(np.float32(np.cos(first + n))))
            found["absolute_value"].append(value[n])
            found["absolute_advantage"].append(max(-1.0, min(1.0, rise)))
        first += len(table)
    return {name: np.array(numbers) for name, numbers in found.items()}


def test_the_columns_stand_in_the_dataset(recording: Path, output_root: str) -> None:
    made, folder = export(output_root, recording)
    tables = rows(folder / "data")
    assert made.counts["columns"] == 3
    for name, numbers in expected(tables).items():
        column = pa.concat_tables(tables).column(name)
        assert column.type == pa.float64()
        np.testing.assert_allclose(column.to_numpy(), numbers, rtol=0, atol=1e-15)
    features = json.loads((folder / "meta/info.json").read_text())["features"]
    assert {name: features[name]["dtype"] for name in NAMES} == dict.fromkeys(NAMES, "float64")
    LeRobotReader.open(str(folder)).table(3)
    # And the dataset goes round: its columns are ranked without a value model.
    again = execute("import_dataset", {"dataset_uri": str(folder)}, {}, output_root)
    legacy = {"preset": "kai0_legacy", "kai0": "--threshold 30"}
    labels = execute("label_advantage", legacy, {"dataset": again.uri}, output_root).table("labels")
    advantage = expected(tables)["absolute_advantage"].astype(np.float32)
    np.testing.assert_allclose(labels.column("advantage").to_numpy(), advantage, rtol=0, atol=1e-7)


def test_a_single_frame_model_has_no_relative_advantage(recording: Path, output_root: str) -> None:
    made, folder = export(output_root, recording, two_frames=False, kai0_folder="data_PI06_100000")
    added = set(rows(folder / "data_PI06_100000")[0].column_names) - set(rows(folder / "data")[0].column_names)
    assert added == {"absolute_value", "absolute_advantage"}
    assert made.counts["columns"] == 2


def test_kai0s_folder_lies_beside_the_rows(recording: Path, output_root: str) -> None:
    _, folder = export(output_root, recording, kai0_folder=FOLDER)
    before, plain, more = rows(recording / "data"), rows(folder / "data"), rows(folder / FOLDER)
    assert [file.name for file in sorted((folder / FOLDER / "chunk-000").iterdir())] == [
        f"episode_{number:06d}.parquet" for number in range(4)
    ]
    for old, same, new in zip(before, plain, more, strict=True):
        assert same.equals(old)
        assert same.schema.metadata == old.schema.metadata
        assert new.column_names == [*old.column_names, *NAMES]
        assert new.select(old.column_names).equals(old)
        assert [new.schema.field(name).type for name in old.column_names] == [field.type for field in old.schema]
        assert [new.schema.field(name).type for name in NAMES] == [pa.float64()] * 3
        assert new.schema.field("task_index").type == pa.int64()
        told = json.loads(new.schema.metadata[b"huggingface"])["info"]["features"]
        was = json.loads(old.schema.metadata[b"huggingface"])["info"]["features"]
        assert told == {**was, **{name: {"dtype": "float64", "_type": "Value"} for name in NAMES}}
    for name, numbers in expected(more).items():
        np.testing.assert_allclose(pa.concat_tables(more).column(name).to_numpy(), numbers, rtol=0, atol=1e-15)
    # The dataset itself is a v2.1 dataset of what was recorded.
    info = json.loads((folder / "meta/info.json").read_text())
    assert info["codebase_version"] == "v2.1"
    assert not set(info["features"]) & set(NAMES)
    again = execute("import_dataset", {"dataset_uri": str(folder)}, {}, output_root)
    assert again.counts["frames"] == sum(len(table) for table in before)


def test_a_column_that_the_source_has_is_replaced_in_the_folder_only(
    recording: Path, tmp_path: Path, output_root: str
) -> None:
    """kai0's eval.py keeps the old column there without a word."""
    path = Path(shutil.copytree(recording, tmp_path / "recording"))
    for episode in range(4):
        change_rows(path, episode, lambda t: t.append_column("absolute_value", pa.array([7.0] * t.num_rows)))
    feature = {"dtype": "float64", "shape": [1], "names": None}
    change_info(path, lambda info: info["features"].update(absolute_value=feature))
    _, folder = export(output_root, path, kai0_folder=FOLDER)
    assert set(pa.concat_tables(rows(folder / "data")).column("absolute_value").to_pylist()) == {7.0}
    more = pa.concat_tables(rows(folder / FOLDER))
    assert more.column_names.count("absolute_value") == 1
    np.testing.assert_allclose(
        more.column("absolute_value").to_numpy(), expected(rows(folder / FOLDER))["absolute_value"], atol=1e-15
    )


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"kai0_folder": FOLDER, "version": "v3.0"}, "kai0_folder is laid out as v2.1, and version is v3.0"),
        ({"kai0_folder": FOLDER, "columns": ["values"]}, "kai0_folder is for the columns kai0_values"),
        ({"kai0_folder": "data"}, "String should match pattern"),
        ({"kai0_folder": "../data_KAI0_1"}, "String should match pattern"),
        ({"lookahead": 0}, "greater than or equal to 1"),
    ],
)
def test_what_is_refused(config: dict[str, Any], message: str, recording: Path, output_root: str) -> None:
    with pytest.raises(UsageError, match=message):
        export(output_root, recording, **config)


def test_a_relative_advantage_that_is_known_in_part_is_refused(recording: Path, output_root: str) -> None:
    dataset = execute("import_dataset", {"dataset_uri": str(recording)}, {}, output_root)
    count = dataset.counts["frames"]
    values = publish_values(output_root, dataset, np.zeros(count), relative=[None, *([0.1] * (count - 1))])
    with pytest.raises(DataError, match=f"relative_advantage is no finite number in 1 of {count} frames"):
        execute(
            "export_dataset",
            {"columns": ["kai0_values"]},
            {"dataset": dataset.uri, "values": values.uri},
            output_root,
        )
