"""Joined columns: kept in a file without a name, read by block as often as needed."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pytest

from robolift.data.joined import JoinedColumns


def blocks():
    for first in (0, 3):
        numbers = list(range(first, first + 3 - first // 3))
        yield {
            "a": pa.array(numbers),
            "b": pa.array([str(n) for n in numbers]),
            "c": pa.array([n / 2 for n in numbers]),
        }


def test_columns_come_back_as_often_as_needed(tmp_path: Path) -> None:
    with closing(JoinedColumns(blocks(), tmp_path / "new")) as joined:
        assert joined.types == {"a": pa.int64(), "b": pa.string(), "c": pa.float64()}
        for _ in range(2):
            found = list(joined.blocks(["c", "b"]))
            assert [list(block) for block in found] == [["c", "b"]] * 2
            assert [block["c"].to_pylist() for block in found] == [[0.0, 0.5, 1.0], [1.5, 2.0]]
            assert [block["b"].to_pylist() for block in found] == [["0", "1", "2"], ["3", "4"]]


def test_two_readers_do_not_disturb_each_other(tmp_path: Path) -> None:
    with closing(JoinedColumns(blocks(), tmp_path)) as joined:
        for whole, part in zip(joined.blocks(["a", "b", "c"]), joined.blocks(["a"]), strict=True):
            assert whole["a"].equals(part["a"])


def test_nothing_is_left_in_the_folder(tmp_path: Path) -> None:
    with closing(JoinedColumns(blocks(), tmp_path)):
        assert list(tmp_path.iterdir()) == []

    def broken():
        yield from blocks()
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        JoinedColumns(broken(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_no_column_at_all(tmp_path: Path) -> None:
    with closing(JoinedColumns(({} for _ in range(2)), tmp_path)) as joined:
        assert joined.types == {}
        assert list(joined.blocks([])) == []
