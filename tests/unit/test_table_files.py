"""Tables in pieces: the bytes of a table written whole, read by ranges of rows without holding the rest."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from published_targets import make_plan

from robolift import manifest as manifests
from robolift import schema, storage
from robolift.data.dataset import Dataset, DatasetFacts
from robolift.errors import DataError, UsageError
from robolift.manifest import Output
from robolift.table_files import TableReader, TableWriter, episode_blocks

LENGTHS = (70_000, 1, 61_071, 131_072, 5, 40_000)  # episode 2 ends with the first row group, episode 3 is the second


def values(lengths: tuple[int, ...] = LENGTHS) -> pa.Table:
    """A table whose numbers repeat and are partly null."""
    rows = sum(lengths)
    numbers = (np.arange(rows) * 7919 % 10_007).astype(np.float32)
    columns = {
        "episode_index": np.repeat(np.arange(len(lengths)), lengths),
        "frame_index": np.concatenate([np.arange(length) for length in lengths]),
        "value": numbers / -10_007,
        "value_std": numbers % 17,
        "relative_advantage": pa.array(numbers, mask=numbers % 3 == 0),
    }
    return schema.as_table("values", columns)


WHOLE = values()


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("whole") / "values.parquet"
    schema.write_table(path, WHOLE)
    return path.read_bytes()


@settings(max_examples=10)
@given(cuts=st.lists(st.integers(0, WHOLE.num_rows), max_size=5))
def test_the_bytes_are_those_of_the_table_written_whole_wherever_it_is_cut(whole, tmp_path_factory, cuts):
    path = tmp_path_factory.mktemp("cut") / "deep" / "values.parquet"
    bounds = [0, *sorted(cuts), WHOLE.num_rows]
    with TableWriter(path, "values") as table:
        for first, end in pairwise(bounds):
            piece = WHOLE.slice(first, end - first)
            table.add(
                piece if first % 2 else {name: piece.column(name).combine_chunks() for name in piece.column_names}
            )
    assert table.num_rows == 302_149
    assert path.read_bytes() == whole


@pytest.mark.parametrize("name", sorted(schema.TABLES))
def test_a_table_without_rows_has_the_same_bytes_too(tmp_path, name):
    empty = schema.TABLES[name].empty_table()
    schema.write_table(tmp_path / "whole.parquet", empty)
    with TableWriter(tmp_path / "cut.parquet", name) as table:
        table.add(empty)
    assert (tmp_path / "cut.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()


@pytest.mark.parametrize(
    ("second", "problem"),
    [
        ((1, 0), "a key .episode_index, frame_index. stands twice"),
        ((0, 9), "rows are not sorted by episode_index, frame_index"),
    ],
)
def test_rows_that_lie_before_the_piece_before_are_refused_and_leave_no_file(tmp_path, second, problem):
    rest = {"value_target": [0.0], "reward": [0.0]}
    path = tmp_path / "targets.parquet"

    def write() -> None:
        with TableWriter(path, "targets") as table:
            table.add({"episode_index": [1], "frame_index": [0], **rest})
            table.add({"episode_index": [second[0]], "frame_index": [second[1]], **rest})

    with pytest.raises(DataError, match=problem):
        write()
    assert not path.exists()


def test_each_piece_is_checked_against_the_contract(tmp_path):
    table = TableWriter(tmp_path / "targets.parquet", "targets")
    with pytest.raises(DataError, match=r"wrong columns: \['reward'\]"):
        table.add({"episode_index": [0], "frame_index": [0], "value_target": [0.0]})
    with pytest.raises(DataError, match="column reward has 1 nulls"):
        table.add({"episode_index": [0], "frame_index": [0], "value_target": [0.0], "reward": [None]})


def test_an_output_opens_a_table_that_is_published_with_it(tmp_path):
    output = Output(make_plan(tmp_path))
    with output.open_table("values") as table:
        table.add(values((2, 3)))
    assert output.publish({}).table("values").equals(values((2, 3)))


@settings(max_examples=10)
@given(cuts=st.lists(st.integers(0, WHOLE.num_rows), max_size=6))
def test_ranges_of_rows_are_those_of_the_whole(whole, tmp_path_factory, cuts):
    folder = tmp_path_factory.mktemp("read")
    (folder / "values.parquet").write_bytes(whole)
    with TableReader(str(folder), "values") as table:
        assert table.num_rows == 302_149
        bounds = sorted(cuts)
        for first, end in pairwise(bounds):
            assert table.read(first, end).equals(WHOLE.slice(first, end - first))
        for first, rows in table.blocks(50_000):
            assert rows.equals(WHOLE.slice(first, 50_000))


def test_chosen_columns_come_in_the_order_asked_for(tmp_path):
    schema.write_table(tmp_path / "values.parquet", values((2, 1)))
    with TableReader(str(tmp_path), "values", ["value_std", "frame_index"]) as table:
        assert table.read(1, 3).to_pydict() == {"value_std": [14.0, 0.0], "frame_index": [1, 0]}
        assert table.read(3, 3).column_names == ["value_std", "frame_index"]


@pytest.mark.parametrize(("first", "end"), [(0, 1), (2, 5), (3, 2)])
def test_rows_are_read_onwards_and_inside_the_table_only(tmp_path, first, end):
    schema.write_table(tmp_path / "values.parquet", values((4,)))
    with TableReader(str(tmp_path), "values") as table:
        table.read(0, 2)
        with pytest.raises(UsageError, match=f"rows {first} to {end} of .* at row 2 of 4"):
            table.read(first, end)


def test_a_file_against_the_contract_is_refused(tmp_path):
    path = tmp_path / "values.parquet"
    with pytest.raises(DataError, match="file not found"):
        TableReader(str(tmp_path), "values")
    path.write_bytes(b"PAR1 and nothing else")
    with pytest.raises(DataError, match="not a readable Parquet file"):
        TableReader(str(tmp_path), "values")
    pq.write_table(values((3,)).drop_columns("value_std"), path)
    with pytest.raises(DataError, match="column value_std is missing"):
        TableReader(str(tmp_path), "values", ["value"])
    twice = pa.concat_tables([values((3,)), values((3,))]).combine_chunks()
    pq.write_table(
        twice, path, row_group_size=3
    )  # each row group is sorted, the second lies before the end of the first
    with TableReader(str(tmp_path), "values") as table:
        table.read(0, 3)
        with pytest.raises(DataError, match="rows are not sorted"):
            table.read(3, 6)
    with_null = {**values((3,)).to_pydict(), "value": [0.0, None, 0.0]}
    pq.write_table(pa.table(with_null, schema=pa.schema([f.with_nullable(True) for f in schema.VALUES])), path)
    with TableReader(str(tmp_path), "values", ["value"]) as table, pytest.raises(DataError, match="value has 1 nulls"):
        table.read(0, 1)


def test_a_row_group_damaged_on_disk_is_told(tmp_path):
    path = tmp_path / "values.parquet"
    schema.write_table(path, WHOLE)
    content = bytearray(path.read_bytes())
    content[40:200] = bytes(160)
    path.write_bytes(bytes(content))
    with TableReader(str(tmp_path), "values") as table, pytest.raises(DataError, match="not a readable Parquet file"):
        table.read(0, 10)


def test_a_store_is_asked_for_the_row_groups_and_columns_that_are_read(s3, tmp_path, whole, monkeypatch):
    import s3fs

    storage.write_bytes(f"{s3}/run/values.parquet", whole)
    fetched: list[int] = []
    fetch = s3fs.S3File._fetch_range

    def counted(self, start, end):
        fetched.append(end - start)
        return fetch(self, start, end)

    monkeypatch.setattr(s3fs.S3File, "_fetch_range", counted)
    with TableReader(f"{s3}/run", "values", ["frame_index", "value"]) as table:
        assert table.read(131_073, 131_075).column("frame_index").to_pylist() == [1, 2]
        assert table.read(200_000, 200_001).column("frame_index").to_pylist() == [68_928]
    # The footer, and the second row group in one piece or one for each of its columns.
    assert len(fetched) <= 3
    assert sum(fetched) < len(whole) / 2


def test_reading_by_blocks_holds_one_row_group(tmp_path):
    """A process that reads 3 million rows by blocks needs no more memory than one that reads 300,000."""
    schema.write_table(tmp_path / "short" / "values.parquet", WHOLE)
    with TableWriter(tmp_path / "long" / "values.parquet", "values") as table:
        for copy in range(10):
            shifted = pc.add(WHOLE.column("episode_index"), copy * len(LENGTHS))
            table.add(WHOLE.set_column(0, "episode_index", shifted))
    code = (
        "import sys, pyarrow as pa\n"
        "from robolift.table_files import TableReader\n"
        "with TableReader(sys.argv[1], 'values') as table:\n"
        "    for first in range(0, table.num_rows, 50_000):\n"
        "        table.read(first, min(first + 50_000, table.num_rows))\n"
        "print(pa.default_memory_pool().max_memory())"
    )
    peak = [
        int(subprocess.run([sys.executable, "-c", code, str(tmp_path / name)], capture_output=True, check=True).stdout)
        for name in ("short", "long")
    ]
    assert peak[1] <= 1.2 * peak[0]


def test_writing_by_pieces_holds_one_row_group(tmp_path):
    """A process that writes 4 million rows in pieces needs no more memory than one that writes 800,000."""
    code = (
        "import pathlib, sys, numpy as np, pyarrow as pa\n"
        "from robolift.table_files import TableWriter\n"
        "some = np.zeros(50_000, np.float32)\n"
        "with TableWriter(pathlib.Path(sys.argv[1]), 'values') as table:\n"
        "    for episode in range(int(sys.argv[2])):\n"
        "        keys = {'episode_index': np.full(len(some), episode), 'frame_index': np.arange(len(some))}\n"
        "        table.add({**keys, **dict.fromkeys(('value', 'value_std', 'relative_advantage'), some)})\n"
        "print(pa.default_memory_pool().max_memory())"
    )
    peak = []
    for episodes in (16, 80):
        command = [sys.executable, "-c", code, str(tmp_path / f"{episodes}.parquet"), str(episodes)]
        peak.append(int(subprocess.run(command, capture_output=True, check=True).stdout))
    assert peak[1] <= 1.2 * peak[0]


def test_blocks_are_whole_episodes():
    starts = np.cumsum([0, *LENGTHS])
    assert list(episode_blocks(starts)) == [range(3), range(3, 4), range(4, 6)]
    assert list(episode_blocks(starts, max_frames=70_001)) == [range(2), range(2, 3), range(3, 4), range(4, 6)]
    assert list(episode_blocks(starts, max_frames=1)) == [range(i, i + 1) for i in range(6)]
    assert list(episode_blocks(np.array([0]))) == []


def imported(folder: Path, frames: int) -> Dataset:
    """A copy of nothing but the tables of a dataset whose episodes have 5 frames together."""
    episodes = {
        "episode_index": [0, 1],
        "length": [2, 3],
        "task": ["push", "push"],
        "outcome": ["success", "failure"],
        "kind": ["rollout", "rollout"],
        "iteration": [1, 1],
    }
    rows = {
        "episode_index": [0, 0, 1, 1, 1, 1][:frames],
        "frame_index": [0, 1, 0, 1, 2, 3][:frames],
        "timestamp": np.zeros(frames),
        "control_mode": ["autonomous"] * frames,
    }
    schema.write_table(folder / "frames.parquet", schema.as_table("frames", rows))
    facts = DatasetFacts(sources=(), fps=10.0, robot_type="", cameras=(), tasks=("push",), features={}, simulator=None)
    return Dataset(str(folder), facts, schema.as_table("episodes", episodes))


def test_a_dataset_reads_its_frames_when_they_are_asked_for(dataset, monkeypatch):
    read: list[str] = []
    table = schema.read_table
    monkeypatch.setattr(schema, "read_table", lambda uri, name: read.append(name) or table(uri, name))
    opened = Dataset.open(manifests.load(dataset.uri))
    keys = opened.keys(0, opened.num_frames)
    with opened.frame_blocks(["control_mode"]) as blocks:
        modes = [blocks.read(*opened.starts[[block.start, block.stop]]) for block in episode_blocks(opened.starts, 20)]
    assert read == ["episodes"]
    assert opened.frames is opened.frames
    assert read == ["episodes", "frames"]
    assert pa.concat_tables(modes).column("control_mode").equals(opened.frames.column("control_mode"))
    for name in schema.KEYS:
        assert keys[name].tolist() == opened.frames.column(name).to_pylist()
        for first, end in ((0, 0), (3, 3), (5, 40), (24, 48), (opened.num_frames, opened.num_frames)):
            assert opened.keys(first, end)[name].tolist() == opened.frames.column(name)[first:end].to_pylist()


@pytest.mark.parametrize("frames", [4, 6])
def test_a_table_of_frames_that_does_not_fit_the_episodes_is_refused(tmp_path, frames):
    opened = imported(tmp_path, frames)
    problem = f"table frames has {frames} rows.*expected: 5, the lengths of the 2 episodes"
    with pytest.raises(DataError, match=f"(?s){problem}"):
        _ = opened.frames
    with pytest.raises(DataError, match=f"(?s){problem}"):
        opened.frame_blocks()
