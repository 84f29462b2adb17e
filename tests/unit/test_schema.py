from __future__ import annotations

import errno
import io
import itertools
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robolift import schema, storage
from robolift.errors import DataError

TARGETS = {
    "episode_index": [0, 0, 2],
    "frame_index": [0, 1, 0],
    "value_target": [-1.0, 0.0, -0.5],
    "reward": [-1.0, 0.0, -0.5],
}


def test_arrays_become_a_table_with_the_dtypes_of_the_contract():
    table = schema.as_table("targets", {name: np.array(column) for name, column in TARGETS.items()})

    assert table.schema == schema.TARGETS
    assert table.column("value_target").type == pa.float32()
    assert table.to_pydict() == TARGETS


def test_null_is_unknown_and_nan_is_kept():
    values = {
        "episode_index": [0, 0, 0],
        "frame_index": [0, 1, 2],
        "value": [0.0, -1.0, -0.25],
        "value_std": [0.0, 0.1, 0.2],
        "relative_advantage": [None, 0.5, float("nan")],
    }
    column = schema.as_table("values", values).column("relative_advantage")

    assert column.null_count == 1
    assert column.to_pylist()[:2] == [None, 0.5]
    assert np.isnan(column.to_pylist()[2])


@pytest.mark.parametrize("wrong", ["missing", "unknown"])
def test_columns_that_do_not_belong_are_named(wrong):
    columns = (
        {**TARGETS, "extra": [1, 2, 3]} if wrong == "unknown" else {k: v for k, v in TARGETS.items() if k != "reward"}
    )
    named = "extra" if wrong == "unknown" else "reward"

    with pytest.raises(DataError, match=rf"wrong columns: \['{named}'\]"):
        schema.as_table("targets", columns)
    with pytest.raises(DataError, match=rf"wrong columns: \['{named}'\]"):
        schema.as_table("targets", pa.table(columns))


def test_a_table_is_brought_to_the_contract_so_equal_rows_are_equal_bytes(tmp_path):
    table = schema.as_table("targets", TARGETS)
    loose = pa.table({name: table.column(name) for name in reversed(table.column_names)})
    loose = loose.replace_schema_metadata({"pandas": "{}", "made": "elsewhere"})

    same = schema.as_table("targets", loose)
    schema.write_table(tmp_path / "a.parquet", table)
    schema.write_table(tmp_path / "b.parquet", same)

    assert same.schema == schema.TARGETS
    assert same.schema.metadata is None
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        (([0, 0, 0], [1, 0, 2]), "not sorted"),
        (([1, 0, 0], [0, 0, 1]), "not sorted"),
        (([0, 0, 0], [0, 1, 1]), "stands twice"),
    ],
)
def test_keys_that_are_unsorted_or_repeated_are_refused(keys, problem):
    with pytest.raises(DataError, match=problem):
        schema.as_table("targets", {**TARGETS, "episode_index": keys[0], "frame_index": keys[1]})


def test_an_empty_table_and_a_single_row_are_fine():
    assert schema.as_table("targets", {name: [] for name in TARGETS}).num_rows == 0
    assert schema.as_table("targets", {name: column[:1] for name, column in TARGETS.items()}).num_rows == 1


def test_a_null_where_none_may_be_is_counted():
    with pytest.raises(DataError, match="column reward has 2 nulls"):
        schema.as_table("targets", {**TARGETS, "reward": [None, 0.0, None]})


def test_a_wrong_dtype_names_column_and_expectation(tmp_path):
    table = schema.as_table("targets", TARGETS)
    wide = table.set_column(3, "reward", table.column("reward").cast(pa.float64()))
    pq.write_table(wide, tmp_path / "targets.parquet")

    with pytest.raises(DataError, match="column reward is double") as caught:
        schema.read_table(str(tmp_path), "targets")
    assert str(caught.value).endswith("expected: float")
    assert caught.value.where == f"{tmp_path}/targets.parquet"


def test_a_missing_column_in_a_file_is_named(tmp_path):
    pq.write_table(schema.as_table("targets", TARGETS).drop_columns(["reward"]), tmp_path / "targets.parquet")
    with pytest.raises(DataError, match="column reward is missing"):
        schema.read_table(str(tmp_path), "targets")


def test_reading_takes_the_columns_that_are_named_in_their_order_and_misses_none(tmp_path):
    uri = str(tmp_path / "some.parquet")
    pq.write_table(pa.table({"a": [1], "b": [2], "c": [3]}), uri)
    assert schema.read_parquet(uri, columns=["c", "a"]).to_pydict() == {"c": [3], "a": [1]}
    with pytest.raises(DataError, match="no column x, y"):
        schema.read_parquet(uri, columns=["y", "a", "x"])


def test_reading_a_table_does_not_import_pyarrow_dataset(tmp_path):
    uri = str(tmp_path / "some.parquet")
    pq.write_table(pa.table({"a": [1]}), uri)
    read = f"import sys; from robolift import schema; schema.read_parquet({uri!r})"
    subprocess.run([sys.executable, "-c", f"{read}; assert 'pyarrow.dataset' not in sys.modules"], check=True)


def test_reading_gives_the_contract_s_columns_alone_and_in_order(tmp_path):
    table = schema.as_table("targets", TARGETS)
    pq.write_table(
        table.select(table.column_names[::-1]).append_column("more", [[1, 2, 3]]), tmp_path / "targets.parquet"
    )

    assert schema.read_table(str(tmp_path), "targets").column_names == schema.TARGETS.names


@pytest.mark.parametrize("content", [b"", b"not parquet at all", b"PAR1" + b"\x00" * 20 + b"PAR1"])
def test_a_file_that_is_no_parquet_is_a_data_error(tmp_path, content):
    (tmp_path / "targets.parquet").write_bytes(content)
    with pytest.raises(DataError, match="not a readable Parquet file"):
        schema.read_table(str(tmp_path), "targets")


def test_a_truncated_parquet_file_is_a_data_error(tmp_path):
    path = tmp_path / "targets.parquet"
    schema.write_table(path, schema.as_table("targets", TARGETS))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="not a readable Parquet file"):
        schema.read_parquet(str(path))


def test_a_missing_table_is_a_data_error(tmp_path):
    with pytest.raises(DataError, match="file not found"):
        schema.read_table(str(tmp_path), "targets")


@settings(max_examples=20, deadline=None, database=None)
@given(cuts=st.lists(st.integers(0, 3000), max_size=6), seed=st.integers(0, 9))
def test_bytes_do_not_depend_on_how_a_table_is_chunked(tmp_path_factory, cuts, seed):
    rows = 3000
    noise = np.random.default_rng(seed).normal(size=rows).astype(np.float32)
    zeros = np.zeros(rows, dtype=np.int64)
    table = schema.as_table(
        "targets", {"episode_index": zeros, "frame_index": np.arange(rows), "value_target": noise, "reward": noise}
    )
    bounds = [0, *sorted(cuts), rows]
    chunked = pa.concat_tables([table.slice(a, b - a) for a, b in itertools.pairwise(bounds)])
    folder = tmp_path_factory.mktemp("bytes")

    schema.write_table(folder / "whole.parquet", table)
    schema.write_table(folder / "chunked.parquet", chunked)

    assert (folder / "whole.parquet").read_bytes() == (folder / "chunked.parquet").read_bytes()


def test_every_sidecar_is_keyed_by_frame_and_no_key_may_be_null():
    for name, table in schema.TABLES.items():
        assert table.names[0] == "episode_index"
        assert (name == "episodes") or (table.names[:2] == ["episode_index", "frame_index"])
        assert all(not table.field(key).nullable for key in schema.KEYS if key in table.names)
        assert all(table.field(key).type == pa.int64() for key in schema.KEYS if key in table.names)


def test_kinds_are_distinct_names_that_kfp_accepts():
    assert len({str(kind) for kind in schema.Kind}) == len(schema.Kind)
    assert all(str(kind).isalnum() for kind in schema.Kind)


class Failing(io.BytesIO):
    """A file of a store that stops answering."""

    def __init__(self, content: bytes, error: OSError) -> None:
        super().__init__(content)
        self.error = error

    def read(self, *_: int | None) -> bytes:
        raise self.error


@pytest.mark.parametrize(
    "error", [OSError(errno.EBUSY, "Please reduce your request rate."), TimeoutError(), ConnectionResetError(104, "x")]
)
def test_a_store_that_fails_is_not_taken_for_damaged_data(tmp_path, monkeypatch, error):
    path = tmp_path / "targets.parquet"
    schema.write_table(path, schema.as_table("targets", TARGETS))
    monkeypatch.setattr(storage, "open_file", lambda uri: Failing(path.read_bytes(), error))
    with pytest.raises(type(error)) as caught:
        schema.read_parquet(str(path))
    assert caught.value is error


@pytest.mark.parametrize("place", ["head", "pages", "footer"])
def test_arrow_s_own_errors_carry_no_number(tmp_path, place):
    path = tmp_path / "targets.parquet"
    pq.write_table(pa.table({"a": [f"frame {i}" for i in range(10_000)]}), path, compression="zstd")
    raw = bytearray(path.read_bytes())
    start, length = {"head": (4, 40), "pages": (len(raw) // 4, len(raw) // 2), "footer": (len(raw) - 60, 40)}[place]
    raw[start : start + length] = b"\xff" * length
    path.write_bytes(raw)
    with pytest.raises((pa.ArrowException, OSError)) as caught:
        pq.read_table(io.BytesIO(raw))
    assert getattr(caught.value, "errno", None) is None
    with pytest.raises(DataError, match="not a readable Parquet file"):
        schema.read_parquet(str(path))
