from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest

from robolift.errors import DataError
from robolift.value_model import features


def write(path, rows, cuts, width=3):
    rng = np.random.default_rng(0)
    data = rng.standard_normal((rows, width)).astype(np.float32)
    writer = features.FeatureWriter(path, width)
    for begin, end in zip([0, *cuts], [*cuts, rows], strict=True):
        index = np.arange(begin, end)
        writer.add_arrays(index // 10, index % 10, data[begin:end])
    writer.close()
    return data


def test_bytes_do_not_depend_on_the_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(features, "ROW_GROUP_ROWS", 16)
    data = write(tmp_path / "a", 50, [])
    write(tmp_path / "b", 50, [1, 15, 16, 16, 33, 49])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    table = pq.read_table(tmp_path / "a")
    assert table.column("features").combine_chunks().flatten().to_numpy().reshape(50, 3).tolist() == data.tolist()
    assert table.column("episode_index").to_pylist()[48:] == [4, 4]
    assert [pq.ParquetFile(tmp_path / "a").metadata.row_group(g).num_rows for g in range(4)] == [16, 16, 16, 2]


def test_merging_shards_gives_the_file_of_one_shard(tmp_path, monkeypatch):
    monkeypatch.setattr(features, "ROW_GROUP_ROWS", 16)
    data = write(tmp_path / "whole", 50, [])
    for name, begin, end in (("x", 0, 21), ("y", 21, 21), ("z", 21, 50)):
        writer = features.FeatureWriter(tmp_path / name, 3)
        index = np.arange(begin, end)
        writer.add_arrays(index // 10, index % 10, data[begin:end])
        writer.close()
    assert features.merge([str(tmp_path / name) for name in "xyz"], tmp_path / "merged") == 50
    assert (tmp_path / "merged").read_bytes() == (tmp_path / "whole").read_bytes()


def test_vectors_of_different_length_do_not_mix(tmp_path):
    write(tmp_path / "a", 5, [], width=3)
    write(tmp_path / "b", 5, [], width=4)
    with pytest.raises(DataError, match="length"):
        features.merge([str(tmp_path / "a"), str(tmp_path / "b")], tmp_path / "c")
