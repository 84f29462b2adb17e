"""Columns as they are stored, several at a time, and the files they are read from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from robolift import storage
from robolift.data.dataset import Dataset
from robolift.data.lerobot import LeRobotReader
from robolift.data.lerobot_format import FeatureSpec
from robolift.data.lerobot_writer import LeRobotWriter
from robolift.errors import DataError
from robolift.stages.stage import execute

FEATURES = {
    "action": FeatureSpec("float32", (2,)),
    "exact": FeatureSpec("float64"),
    "count": FeatureSpec("int32"),
    "note": FeatureSpec("string"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two episodes of 3 and 2 frames, a file each; 0.1 is another number as float32."""
    writer = LeRobotWriter(tmp_path / "d", fps=10, features=FEATURES, cameras={}, robot_type="arm", version="v2.1")
    for frames in (3, 2):
        columns = {
            "action": np.ones((frames, 2)),
            "exact": np.full(frames, 0.1),
            "count": np.arange(frames),
            "note": ["a"] * frames,
        }
        writer.add_episode(columns, videos={}, task="fold")
    writer.finish()
    return tmp_path / "d"


def test_columns_keep_their_dtypes(folder: Path, output_root: str) -> None:
    dataset = Dataset.open(
        execute("import_dataset", {"dataset_uri": str(folder), "control_mode": "demo"}, {}, output_root)
    )
    found = dataset.stored_columns(["exact", "count", "note", "action"])
    assert {name: array.dtype.name for name, array in found.items()} == {
        "exact": "float64",
        "count": "int32",
        "note": "object",
        "action": "float32",
    }
    assert found["exact"].tolist() == [0.1] * 5
    assert found["count"].tolist() == [0, 1, 2, 0, 1]
    assert found["action"].shape == (5, 2)
    assert dataset.stored_columns(["count"], [1, 1])["count"].tolist() == [0, 1, 0, 1]
    assert dataset.column("exact").dtype == np.float32
    assert dataset.column("count").dtype == np.int64
    with pytest.raises(DataError, match="no column nothing in the dataset"):
        dataset.stored_columns(["exact", "nothing"])


def test_a_file_without_statistics_is_read_alike(folder: Path) -> None:
    before = [LeRobotReader.open(str(folder)).table(episode) for episode in range(2)]
    for file in folder.rglob("*.parquet"):
        pq.write_table(pq.read_table(file), file, write_statistics=False)
    after = [LeRobotReader.open(str(folder)).table(episode) for episode in range(2)]
    assert all(old.equals(new) for old, new in zip(before, after, strict=True))


def test_the_file_of_another_episode_is_not_taken_for_it(folder: Path) -> None:
    first, second = sorted((folder / "data").rglob("*.parquet"))
    second.write_bytes(first.read_bytes())
    with pytest.raises(DataError, match="no rows of episode 1"):
        LeRobotReader.open(str(folder)).table(1)


def test_what_arrow_opens_is_checked_first(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="file not found"):
        storage.open_for_arrow(str(tmp_path / "none.parquet"))
    with pytest.raises(DataError, match="is a folder"):
        storage.open_for_arrow(str(tmp_path))
    (tmp_path / "file").write_bytes(b"12")
    assert storage.open_for_arrow(f"file://{tmp_path}/file") == str(tmp_path / "file")
    storage.write_bytes("memory://arrow/file", b"34")
    found = storage.open_for_arrow("memory://arrow/file")
    assert not isinstance(found, str)
    assert found.read() == b"34"
