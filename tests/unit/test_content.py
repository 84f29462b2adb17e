"""A dataset is what was imported: what counts as its content, and what is noticed of a change made since."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import synthetic
from synthetic import TOPVIEW, change_rows, set_column

from robolift import storage
from robolift.data import content
from robolift.data.content import ContentCheck, content_digest, digest_of_content, list_content
from robolift.data.dataset import Dataset
from robolift.errors import DataError
from robolift.stages.stage import execute


@pytest.fixture
def recording(tmp_path) -> Path:
    synthetic.write_recording(tmp_path / "recording", episodes=2, version="v2.1", cameras=[TOPVIEW])
    return tmp_path / "recording"


@pytest.fixture
def opened(recording, tmp_path) -> Dataset:
    return Dataset.open(execute("import_dataset", {"dataset_uri": str(recording)}, {}, str(tmp_path / "runs")))


def test_the_digest_is_of_what_is_listed(recording):
    files = list_content(str(recording))
    assert digest_of_content(files) == content_digest(str(recording))
    assert "sha256" in files["meta/info.json"]
    assert "sha256" in files["data/chunk-000/episode_000001.parquet"]
    video = f"videos/chunk-000/{TOPVIEW}/episode_000000.mp4"
    assert files[video] == {"bytes": (recording / video).stat().st_size}


def test_actions_overwritten_in_place_are_noticed(recording, opened):
    size = (recording / "data/chunk-000/episode_000001.parquet").stat().st_size
    change_rows(
        recording, 1, set_column("action", lambda old: pa.array(np.flip(old, 0).tolist(), pa.list_(pa.float32(), 4)))
    )
    path = recording / "data/chunk-000/episode_000001.parquet"
    path.write_bytes(path.read_bytes().ljust(size, b"\0")[:size])

    assert opened.column("action", [0]).shape[1] == 4
    with pytest.raises(DataError, match="changed or lost after the dataset was imported") as caught:
        opened.column("action", [1])
    assert caught.value.where == storage.normalize(str(path))
    assert "a changed recording is another dataset" in caught.value.expected


def test_one_changed_byte_of_the_same_size_is_noticed(recording, opened):
    path = recording / "data/chunk-000/episode_000000.parquet"
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    with pytest.raises(DataError, match="changed or lost after the dataset was imported"):
        opened.column("action", [0])


def test_changed_meta_is_noticed_when_the_dataset_is_opened(recording, opened):
    path = recording / "meta/tasks.jsonl"
    path.write_text(path.read_text().replace('"task": "', '"task": "never '))
    with pytest.raises(DataError, match=r"changed or lost after the dataset was imported\n.*tasks\.jsonl"):
        opened.reader(0)


def test_a_lost_meta_file_that_nothing_needs_is_noticed_too(recording, opened):
    (recording / "meta/episodes_stats.jsonl").unlink()
    with pytest.raises(DataError, match=r"changed or lost after the dataset was imported\n.*episodes_stats\.jsonl"):
        opened.reader(0)


def test_a_video_of_another_size_is_noticed(recording, opened):
    path = recording / f"videos/chunk-000/{TOPVIEW}/episode_000001.mp4"
    path.write_bytes(path.read_bytes() + b"\0")
    assert sum(1 for _ in opened.video(0, TOPVIEW)) > 0
    with pytest.raises(DataError, match=r"changed or lost after the dataset was imported\n.*episode_000001\.mp4"):
        opened.video(1, TOPVIEW)


def test_the_files_of_earlier_sources_are_still_known(recording, opened, tmp_path):
    synthetic.write_recording(tmp_path / "later", episodes=1, seed=9, version="v2.1", cameras=[TOPVIEW])
    config = {"dataset_uri": str(tmp_path / "later")}
    both = Dataset.open(execute("import_dataset", config, {"previous": opened.uri}, str(tmp_path / "runs")))
    storage.remove(opened.uri)

    assert both.content(0) == list_content(str(recording))
    assert both.content(1) == list_content(config["dataset_uri"])
    change_rows(recording, 0, set_column("action", lambda old: pa.array(old, pa.list_(pa.float32(), 4))))
    with pytest.raises(DataError, match="changed or lost after the dataset was imported"):
        both.column("action", [0])
    assert len(both.column("action", [2]))


def test_a_file_is_read_only_where_the_store_s_own_hash_does_not_settle_it(monkeypatch):
    root = "memory://content-check"
    storage.write_bytes(f"{root}/a.parquet", b"rows")
    imported = {"a.parquet": {"bytes": 4, "tags": ["one"], "sha256": content.sha256(f"{root}/a.parquet")}}
    hashed = []
    sha256 = content.sha256
    monkeypatch.setattr(content, "sha256", lambda uri: hashed.append(uri) or sha256(uri))
    info = storage.info
    monkeypatch.setattr(storage, "info", lambda uri: {**info(uri), "ETag": tag})

    tag = "one"
    check = ContentCheck(root, imported)
    check.file("a.parquet")
    check.file("a.parquet")
    assert hashed == []

    tag = "two"  # the same bytes, stored again in another way
    ContentCheck(root, imported).file("a.parquet")
    assert len(hashed) == 1
    storage.write_bytes(f"{root}/a.parquet", b"ROWS")
    with pytest.raises(DataError, match="changed or lost after"):
        ContentCheck(root, imported).file("a.parquet")
    storage.remove(root)


def test_folders_linked_from_another_disk_are_part_of_the_dataset(recording, tmp_path):
    plain = content_digest(str(recording))
    (recording / "data/chunk-000").rename(tmp_path / "bigdisk")
    (recording / "data/chunk-000").symlink_to(tmp_path / "bigdisk")
    (recording / "data/around").symlink_to(recording)

    assert content_digest(str(recording)) == plain
    opened = Dataset.open(execute("import_dataset", {"dataset_uri": str(recording)}, {}, str(tmp_path / "runs")))
    assert len(opened.column("action")) == opened.num_frames
    table = pq.read_table(tmp_path / "bigdisk/episode_000000.parquet")
    pq.write_table(table.slice(1), tmp_path / "bigdisk/episode_000000.parquet")
    assert content_digest(str(recording)) != plain


def test_a_small_file_is_read_once_to_be_checked_and_used(tmp_path, monkeypatch):
    root = str(tmp_path)
    small, large = b"12345678", b"123456789"
    for name, data in (("small", small), ("large", large)):
        storage.write_bytes(f"{root}/{name}", data)
    imported = {
        name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in (("small", small), ("large", large))
    }
    monkeypatch.setattr("robolift.data.content.HELD_BYTES", 8)
    check = ContentCheck(root, imported)
    assert (check.read("small"), check.read("large")) == (small, None)
    for name in ("small", "large"):
        storage.write_bytes(f"{root}/{name}", b"x" * imported[name]["bytes"])
        with pytest.raises(DataError, match="changed or lost after the dataset was imported"):
            ContentCheck(root, imported).read(name)
    with pytest.raises(DataError, match="changed or lost"):
        ContentCheck(root, {}).read("small")
    storage.remove(f"{root}/small")
    with pytest.raises(DataError, match="file not found"):
        ContentCheck(root, imported).read("small")


def test_a_small_file_that_has_grown_is_not_read(monkeypatch):
    class Grown(io.BytesIO):
        def read(self, size=-1, /):
            raise AssertionError("it was read")

    monkeypatch.setattr(storage, "open_file", lambda uri: Grown(bytes(100)))
    with pytest.raises(DataError, match="changed or lost after the dataset was imported"):
        ContentCheck("memory://grown", {"rows.parquet": {"bytes": 8, "sha256": ""}}).read("rows.parquet")
