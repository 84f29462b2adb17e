"""An import writes its tables while it reads: the bytes are those of any order, batch and block."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import synthetic

from robolift import schema, storage
from robolift.data.dataset import Dataset
from robolift.data.episode_tables import EpisodeTables
from robolift.data.lerobot_meta import read_meta
from robolift.errors import DataError
from robolift.manifest import Manifest
from robolift.stages.stage import execute
from robolift.table_files import TableWriter

TABLES = ("frames.parquet", "episodes.parquet", "metrics.json")


@pytest.fixture(scope="module")
def recording(tmp_path_factory) -> Path:
    """A v3.0 dataset of eight episodes in one data file."""
    path = tmp_path_factory.mktemp("tables") / "recording"
    synthetic.write_recording(path, cameras=())
    return path


@pytest.fixture(scope="module")
def made(recording) -> Manifest:
    return imported(recording, recording.parent / "runs")


def imported(recording: Path, root: Path, **inputs: str) -> Manifest:
    return execute("import_dataset", {"dataset_uri": str(recording)}, inputs, str(root))


def content(made: Manifest) -> list[bytes]:
    return [storage.read_bytes(made.file(name)) for name in TABLES]


def rewritten(recording: Path, path: Path, *, row_group_size: int, order: list[int] | None = None) -> Path:
    """Copy a recording with its rows in other row groups and its episodes in another order."""
    shutil.copytree(recording, path)
    file = next(path.glob("data/*/*.parquet"))
    table = pq.read_table(file)
    if order:
        owners = table.column("episode_index").to_numpy()
        table = pa.concat_tables([table.filter(pa.array(owners == episode)) for episode in order])
    pq.write_table(table, file, row_group_size=row_group_size)
    return path


@pytest.mark.parametrize("batch", [1, 7, 100])
@pytest.mark.parametrize("row_group_size", [5, 1000])
def test_batches_leave_no_trace(recording, made, tmp_path, monkeypatch, batch, row_group_size):
    monkeypatch.setattr(schema, "BATCH_ROWS", batch)
    other = rewritten(recording, tmp_path / "recording", row_group_size=row_group_size)
    assert content(imported(other, tmp_path / "runs")) == content(made)


def test_episodes_that_lie_out_of_order_wait_for_their_turn(recording, made, tmp_path):
    other = rewritten(recording, tmp_path / "recording", row_group_size=9, order=[3, 1, 0, 2, 7, 6, 5, 4])
    assert content(imported(other, tmp_path / "runs")) == content(made)


def test_blocks_leave_no_trace(recording, made, tmp_path, monkeypatch):
    monkeypatch.setattr("robolift.data.episode_tables.BLOCK_FRAMES", 20)
    assert content(imported(recording, tmp_path / "runs")) == content(made)


def test_the_tables_before_are_copied_by_blocks(recording, made, tmp_path):
    synthetic.write_recording(tmp_path / "more", cameras=(), episodes=3, seed=9)
    both = imported(tmp_path / "more", tmp_path / "runs", previous=made.uri)
    frames, before = both.table("frames"), made.table("frames")
    assert frames.slice(0, before.num_rows).equals(before)
    assert frames.column("episode_index")[-1].as_py() == 10
    assert both.table("episodes").column("iteration").to_pylist() == [1] * 8 + [2] * 3
    assert (both.counts["episodes"], both.counts["new_episodes"]) == (11, 3)
    modes = frames.column("control_mode").to_pylist()
    assert both.metrics()["frames_by_control_mode"] == {name: modes.count(name) for name in sorted(set(modes))}
    schema.write_table(tmp_path / "whole.parquet", schema.as_table("frames", frames))
    assert (tmp_path / "whole.parquet").read_bytes() == storage.read_bytes(both.file("frames.parquet"))


def test_rows_of_an_episode_that_lie_apart_are_refused_whatever_the_batch(recording, tmp_path, monkeypatch):
    monkeypatch.setattr(schema, "BATCH_ROWS", 4)
    other = rewritten(recording, tmp_path / "recording", row_group_size=4)
    file = next(other.glob("data/*/*.parquet"))
    table = pq.read_table(file)
    pq.write_table(pa.concat_tables([table.slice(1), table.slice(0, 1)]), file, row_group_size=4)
    with pytest.raises(DataError, match="do not stand together"):
        imported(other, tmp_path / "runs")
    assert not list((tmp_path / "runs").rglob("frames.parquet"))


def test_a_second_row_group_that_is_damaged_is_told(recording, tmp_path):
    other = rewritten(recording, tmp_path / "recording", row_group_size=60)
    file = next(other.glob("data/*/*.parquet"))
    facts = pq.read_metadata(file).row_group(1).column(0)
    raw = bytearray(file.read_bytes())
    start = facts.dictionary_page_offset or facts.data_page_offset
    raw[start : start + 40] = bytes(40)
    file.write_bytes(raw)
    with pytest.raises(DataError, match="not a readable Parquet file"):
        imported(other, tmp_path / "runs")


def test_what_a_dataset_says_of_its_episodes_is_shared(recording, made):
    episodes = Dataset.open(made).reader(0).episodes
    assert episodes[0].tasks is episodes[7].tasks
    assert episodes[0].extra == {"outcome": "success", "kind": "demo", "seed": 0}
    assert episodes[5].data_path == "data/chunk-000/file-000.parquet"


def test_episodes_of_no_task_and_nothing_further_are_read(tmp_path):
    other = tmp_path / "recording"
    synthetic.write_recording(other, episodes=2, version="v2.1", cameras=(), extra=False)
    synthetic.change_episodes(other, lambda row: row.update(tasks=[]))
    assert [(episode.tasks, episode.extra) for episode in read_meta(str(other)).episodes] == [((), {})] * 2


def test_a_file_of_meta_rows_is_opened_once_and_closed(recording, monkeypatch):
    root = "memory://meta-once"
    for path in recording.rglob("*"):
        if path.is_file():
            storage.write_bytes(f"{root}/{path.relative_to(recording)}", path.read_bytes())
    opened = []
    for_arrow = storage.open_for_arrow
    monkeypatch.setattr(storage, "open_for_arrow", lambda uri: opened.append((uri, for_arrow(uri))) or opened[-1][1])
    monkeypatch.setattr(schema.pq, "read_schema", lambda *_: pytest.fail("opened for its names alone"))
    assert len(read_meta(root).episodes) == 8
    assert [uri.removeprefix(root) for uri, _ in opened] == ["/meta/episodes/chunk-000/file-000.parquet"]
    assert all(file.closed for _, file in opened)
    storage.remove(root)


def test_frames_imported_before_are_copied_once_an_episode_was_good(made, tmp_path):
    before = Dataset.open(made)
    with TableWriter(tmp_path / "frames.parquet", "frames") as frames:
        tables = EpisodeTables(frames, before=before, iteration=2)
        assert frames.num_rows == 0
        assert tables.finish() == before.episodes
        assert frames.num_rows == 123
