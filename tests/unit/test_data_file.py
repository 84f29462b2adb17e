"""A data file is read by episode: few requests of a store, and never more than is asked for or soon will be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from robolift import storage
from robolift.data import data_file
from robolift.data.data_file import DataFile


def write(path: Path, *, episodes: int, length: int, row_group_size: int) -> pa.Table:
    rows = episodes * length
    table = pa.table(
        {
            "episode_index": np.repeat(np.arange(episodes), length),
            "frame_index": np.tile(np.arange(length), episodes),
            "value": np.random.default_rng(0).random(rows),
            "other": np.random.default_rng(1).random(rows),
        }
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=row_group_size)
    return table


@pytest.mark.parametrize("row_group_size", [7, 20, 33, 1000])
@pytest.mark.parametrize("ahead", [0, 2000, 8 << 20])
@pytest.mark.parametrize("held", [False, True])
def test_rows_are_those_of_the_episode_in_any_order(tmp_path, monkeypatch, row_group_size, ahead, held):
    monkeypatch.setattr(data_file, "AHEAD_BYTES", ahead)
    path = tmp_path / "file.parquet"
    table = write(path, episodes=6, length=20, row_group_size=row_group_size)
    file = DataFile(str(path), path.read_bytes() if held else None)
    for episode in (0, 1, 2, 5, 3, 3, 0, 4):
        for columns in (["value"], ["other", "value"], ["frame_index"], ["other"], ["episode_index"]):
            assert file.rows(episode, columns).equals(table.select(columns).slice(20 * episode, 20))
    file.close()


def test_a_store_is_asked_a_few_times_for_a_column_of_many_row_groups(s3, tmp_path, monkeypatch):
    import s3fs

    path = tmp_path / "file.parquet"
    table = write(path, episodes=300, length=200, row_group_size=200)
    storage.write_bytes(f"{s3}/file.parquet", path.read_bytes())
    fetched: list[int] = []
    fetch = s3fs.S3File._fetch_range

    def counted(self, start, end):
        fetched.append(end - start)
        return fetch(self, start, end)

    monkeypatch.setattr(s3fs.S3File, "_fetch_range", counted)
    monkeypatch.setattr(data_file, "AHEAD_BYTES", path.stat().st_size // 8)
    file = DataFile(f"{s3}/file.parquet", None)
    opened = len(fetched)
    read = pa.concat_tables([file.rows(episode, ["value"]) for episode in range(300)])
    assert read.equals(table.select(["value"]))
    # Eight to ten pieces, each of adjacent row groups; the holes between their columns are small enough to fetch.
    assert 8 <= len(fetched) - opened <= 300 / 2
    file.close()
