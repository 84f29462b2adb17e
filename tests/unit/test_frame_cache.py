from __future__ import annotations

import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import coded_dataset
import numpy as np
import pytest
from frame_jobs import Reader, packed, packing

from robolift import storage
from robolift.data import frame_blocks, frame_cache
from robolift.data.dataset import Dataset
from robolift.data.frame_cache import FACTS_FILE, INDEX_FILE, SHARDS, CachedFrames
from robolift.data.frame_coding import Coding
from robolift.data.frame_packing import pack, plan_parts
from robolift.data.frame_workers import each
from robolift.data.frames import DecodedFrames, open_frames, pack_frames
from robolift.data.video import CODECS
from robolift.errors import DataError, UsageError
from robolift.stages.stage import execute

CODINGS = [Coding(format="raw"), Coding(format="png"), Coding(format="jpeg", quantizer=4)]


@pytest.fixture(scope="module")
def opened(dataset) -> Dataset:
    return Dataset.open(dataset)


@pytest.fixture(scope="module", params=["h264", "av1"])
def coded(request, tmp_path_factory) -> Dataset:
    """Two episodes of 32x64 pictures, whose shape shows whether they were stretched."""
    folder = tmp_path_factory.mktemp(request.param)
    coded_dataset.write_dataset(folder / "recording", "v2.1", lengths=(6, 5), codec=CODECS[request.param])
    imported = execute("import_dataset", {"dataset_uri": str(folder / "recording")}, {}, str(folder / "runs"))
    return Dataset.open(imported)


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("coding", CODINGS, ids=lambda coding: coding.format)
@pytest.mark.parametrize("padded", [True, False])
def test_frames_decoded_directly_are_bit_for_bit_those_of_the_cache(coded, tmp_path, coding, padded):
    cameras, size = coded.cameras[::-1], (30, 41)
    cached = packed(coded, tmp_path, cameras, size=size, padded=padded, coding=coding)
    told: Any = {"dataset": coded, "cameras": cameras, "size": size, "padded": padded}
    decoded, plain = DecodedFrames(**told, coding=coding), DecodedFrames(**told)
    rows = np.array([10, 0, 5, 6, 0, 3])
    assert np.array_equal(cached[rows], decoded[rows])
    assert cached[rows].shape == (6, 2, 30, 41, 3)
    assert np.array_equal(plain[rows], decoded[rows]) == coding.lossless
    assert np.abs(plain[rows].astype(int) - decoded[rows]).mean() < 12  # bars with hard edges are JPEG's worst case
    assert cached[rows[:0]].shape == (0, 2, 30, 41, 3)


def test_several_threads_may_ask_at_once(opened, tmp_path):
    cached = packed(opened, tmp_path, coding=CODINGS[2])
    rows = [np.arange(first, opened.num_frames, 7) for first in range(8)]
    expected = [cached[some] for some in rows]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(cached.__getitem__, rows * 3))
    assert all(np.array_equal(one, other) for one, other in zip(found, expected * 3, strict=True))


def test_some_cameras_of_a_cache_in_another_order(opened, tmp_path):
    whole = packed(opened, tmp_path)
    rows = np.arange(opened.num_frames)[::-3]
    for places in ([1], [0], [1, 0]):
        some = CachedFrames(str(tmp_path / "cache"), whole._facts, [opened.cameras[place] for place in places])
        assert np.array_equal(some[rows], whole[rows][:, places])


def test_shards_are_whole_frames_named_by_their_content_and_episodes_are_not_cut(opened, tmp_path):
    cached = packed(opened, tmp_path)
    names = [digest for digest, _ in cached._facts.shards]
    assert sorted(os.listdir(tmp_path / "cache" / SHARDS)) == sorted(names)
    assert [storage.sha256_file(tmp_path / "cache" / SHARDS / name) for name in names] == names
    frame = 2 * 20 * 12 * 3
    assert sum(size for _, size in cached._facts.shards) == opened.num_frames * frame
    parts = plan_parts(opened.starts, packing(opened, tmp_path))
    assert [part.start for part in parts] == [0, *(part.stop for part in parts[:-1])]
    assert parts[-1].stop == opened.num_episodes
    lengths = [int(opened.starts[part.stop] - opened.starts[part.start]) for part in parts]
    assert [size for _, size in cached._facts.shards] == [length * frame for length in lengths]
    index = np.load(tmp_path / "cache" / INDEX_FILE)
    for part in parts:
        rows = slice(opened.starts[part.start], opened.starts[part.stop])
        assert len(set(index["shard"][rows])) == 1
    assert (index["lengths"] == 20 * 12 * 3).all()


def test_an_episode_larger_than_two_shards_is_cut_between_frames(opened, tmp_path):
    small = packed(opened, tmp_path / "small", shard_bytes=3000)
    sizes = [size for _, size in small._facts.shards]
    assert max(sizes) <= 6000
    assert all(size % (2 * 20 * 12 * 3) == 0 for size in sizes)
    rows = np.arange(opened.num_frames)
    assert np.array_equal(small[rows], packed(opened, tmp_path / "large")[rows])


def test_processes_change_no_byte_and_frames_can_be_sent_to_them(opened, tmp_path):
    packed(opened, tmp_path / "one")
    several = packed(opened, tmp_path / "two", num_workers=2)
    assert files(tmp_path / "one" / "cache") == files(tmp_path / "two" / "cache")

    rows = np.array([7, 0, 7])
    private = open_frames(
        opened, opened.cameras, size=(20, 12), padded=False, cache=None, num_workers=1, folder=tmp_path / "private"
    )
    assert list((tmp_path / "private").iterdir()) == []  # its file has no name any more
    for frames in (several, private):
        found = dict(each(Reader(frames), {0: rows, 1: rows}, num_workers=2))
        for process, cameras, size, pictures in found.values():
            assert process != os.getpid()
            assert (cameras, size) == (opened.cameras, (20, 12))
            assert np.array_equal(pictures, several[rows])


@pytest.mark.parametrize("place", ["disk", "store"])
def test_what_a_stopped_run_finished_is_not_decoded_again(opened, tmp_path, monkeypatch, request, place):
    work = storage.join(request.getfixturevalue("s3") if place == "store" else str(tmp_path), "work")
    packed(opened, tmp_path / "whole")
    broken, decoded, original = opened.num_episodes - 1, [], Dataset.video

    def video(self: Dataset, episode: int, *args: Any, **options: Any) -> Any:
        decoded.append(episode)
        frames = original(self, episode, *args, **options)
        return iter(list(frames)[:-1]) if episode == broken else frames

    monkeypatch.setattr(Dataset, "video", video)
    with pytest.raises(DataError, match="the videos have"):
        pack(packing(opened, tmp_path / "first"), work_uri=work, num_workers=1)
    assert not any(path.name.startswith(".") for path in (tmp_path / "first" / SHARDS).iterdir())
    shutil.rmtree(tmp_path / "first")
    broken = -1
    decoded.clear()
    pack(packing(opened, tmp_path / "second"), work_uri=work, num_workers=1)
    assert set(decoded) == set(plan_parts(opened.starts, packing(opened, tmp_path))[-1])
    assert files(tmp_path / "second") == files(tmp_path / "whole" / "cache")


@pytest.mark.parametrize("content", [b"", b"short", None], ids=["empty", "short", "lost"])
def test_a_kept_part_that_the_disk_lost_is_made_again(opened, tmp_path, content):
    packed(opened, tmp_path)  # its parts stay: only the stage removes them
    expected = files(tmp_path / "cache")
    shutil.rmtree(tmp_path / "cache")
    for shard in (tmp_path / "work" / SHARDS).iterdir():
        shard.unlink()
        if content is not None:
            shard.write_bytes(content)
    packed(opened, tmp_path)
    assert files(tmp_path / "cache") == expected
    kept = files(tmp_path / "work" / SHARDS)
    assert kept == files(tmp_path / "cache" / SHARDS)


def test_damaged_and_lost_files_are_told(opened, tmp_path):
    for coding in CODINGS:
        folder = tmp_path / coding.format
        cached = packed(opened, folder, coding=coding)
        shards = folder / "cache" / SHARDS
        again = CachedFrames(str(folder / "cache"), cached._facts, opened.cameras)
        (shards / cached._facts.shards[0][0]).write_bytes(b"\0" * cached._facts.shards[0][1])
        if coding.format != "raw":
            with pytest.raises(DataError, match=rf"damaged[\s\S]*a {coding.format.upper()} file"):
                again[np.array([0])]
        again = CachedFrames(str(folder / "cache"), cached._facts, opened.cameras)
        for length in (1, 0):
            again = CachedFrames(str(folder / "cache"), cached._facts, opened.cameras)
            (shards / cached._facts.shards[0][0]).write_bytes(b"\0" * length)
            with pytest.raises(DataError, match=rf"ends at byte {length}\n[\s\S]*at least"):
                again[np.array([0])]
        (shards / cached._facts.shards[-1][0]).unlink()
        with pytest.raises(DataError, match="file not found"):
            again[np.array([opened.num_frames - 1])]
    with pytest.raises(IndexError, match=f"row {opened.num_frames} of"):
        again[np.array([opened.num_frames])]


@pytest.fixture
def stored(opened, tmp_path, s3, monkeypatch):
    """A cache in a bucket, read through blocks of 4 KB, with the requests and their bytes."""
    cached = packed(opened, tmp_path, size=(32, 32), shard_bytes=200_000)
    for name in files(tmp_path / "cache"):
        storage.upload(tmp_path / "cache" / name, storage.join(s3, "cache", name))
    monkeypatch.setattr(frame_blocks, "BLOCK_BYTES", 4096)
    monkeypatch.setenv(frame_cache.FOLDER_VARIABLE, str(tmp_path / "blocks"))
    requests: list[tuple[str, int]] = []
    original = storage.read_ranges

    def counted(uris: Any, firsts: Any, ends: Any) -> list[bytes]:
        contents = original(uris, firsts, ends)
        requests.extend((uri.rsplit("/", 1)[1], len(content)) for uri, content in zip(uris, contents, strict=True))
        return contents

    monkeypatch.setattr(storage, "read_ranges", counted)

    def open_again() -> CachedFrames:
        requests.clear()
        return CachedFrames(storage.join(s3, "cache"), cached._facts, opened.cameras)

    return cached, open_again, requests, tmp_path / "blocks"


def test_a_cache_in_a_store_is_read_in_ranges_that_are_kept(stored):
    local, open_again, requests, folder = stored
    remote, row = open_again(), np.array([17])
    assert np.array_equal(remote[row], local[row])
    # Of a frame of 6,144 bytes the one or two requested ranges of whole blocks, and one block of the index.
    assert len(requests) <= 3
    assert sum(size for name, size in requests if name != INDEX_FILE) <= 3 * 4096
    assert sorted(path.stat().st_size for path in folder.iterdir())[-1] == 4096
    asked = len(requests)
    assert np.array_equal(remote[row], local[row])
    assert len(requests) == asked
    again = open_again()  # another process, the same folder
    assert np.array_equal(again[row], local[row])
    assert requests == []


def test_frames_in_order_are_read_ahead_and_each_byte_once(stored):
    local, open_again, requests, _ = stored
    remote, rows = open_again(), np.arange(local._facts.num_frames)
    for row in rows:
        assert np.array_equal(remote[row[None]], local[row[None]])
    total = sum(size for _, size in [*local._facts.shards, local._facts.index])
    assert sum(size for _, size in requests) == total
    # A request brings up to nine blocks, and each file begins with a look at a single one.
    assert len(requests) <= total / 4096 / 8 + 3 * len({name for name, _ in requests})


def test_a_batch_asks_for_all_its_ranges_at_once(stored, monkeypatch):
    local, open_again, _, _ = stored
    calls = []
    counted = storage.read_ranges
    monkeypatch.setattr(storage, "read_ranges", lambda *args: calls.append(len(args[0])) or counted(*args))
    rows = np.random.default_rng(0).permutation(local._facts.num_frames)[:20]
    assert np.array_equal(open_again()[rows], local[rows])
    assert len(calls) == 2  # the index, then the pictures


def test_blocks_stay_below_the_limit_and_a_vanished_one_is_read_again(stored, monkeypatch):
    local, open_again, requests, folder = stored
    monkeypatch.setattr(frame_cache, "blocks_limit", lambda: 64_000)
    remote, rows = open_again(), np.arange(local._facts.num_frames)
    for row in rows:
        remote[row[None]]
    kept = sum(path.stat().st_size for path in folder.iterdir())
    assert kept <= 64_000 + 64_000 // frame_blocks.SWEEPS + 9 * 4096
    last = {path.name for path in folder.iterdir()}
    assert any(name.startswith(local._facts.shards[-1][0]) for name in last)  # the oldest went
    assert not any(name.startswith(local._facts.shards[0][0]) for name in last)
    shutil.rmtree(folder)
    folder.mkdir()
    requests.clear()
    assert np.array_equal(remote[rows[-2:]], local[rows[-2:]])
    assert requests


def test_what_earlier_readers_left_too_much_of_goes_when_one_begins(stored, monkeypatch):
    local, open_again, _, folder = stored
    rows = np.arange(local._facts.num_frames)
    assert np.array_equal(open_again()[rows], local[rows])
    monkeypatch.setattr(frame_cache, "blocks_limit", lambda: 64_000)
    open_again()[rows[-1:]]  # far less than a sixteenth of the limit
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 64_000 + 3 * 4096


@pytest.mark.parametrize("content", [b"", b"short"])
def test_a_block_that_the_disk_lost_is_read_again(stored, content):
    local, open_again, requests, folder = stored
    rows = np.array([3, 50])
    assert np.array_equal(open_again()[rows], local[rows])
    for path in folder.iterdir():
        path.write_bytes(content)
    again = open_again()
    assert np.array_equal(again[rows], local[rows])
    asked = len(requests)
    assert np.array_equal(again[rows], local[rows])
    assert len(requests) == asked > 0


def test_a_folder_that_is_lost_or_can_t_be_made_slows_reading_and_changes_nothing(stored, monkeypatch):
    local, open_again, requests, folder = stored
    monkeypatch.setattr(frame_cache, "blocks_limit", lambda: 64_000)
    rows = np.arange(local._facts.num_frames)
    remote = open_again()
    remote[rows[:1]]
    shutil.rmtree(folder)
    assert np.array_equal(remote[rows], local[rows])  # more than a sixteenth of the limit
    folder.write_bytes(b"")
    assert np.array_equal(open_again()[rows], local[rows])
    asked = len(requests)
    assert np.array_equal(open_again()[rows], local[rows])
    assert len(requests) == asked


def test_blocks_that_may_be_read_but_not_touched_are_used(stored, monkeypatch):
    local, open_again, requests, folder = stored
    rows = np.array([3, 50])
    assert np.array_equal(open_again()[rows], local[rows])
    before = files(folder)

    def refused(*_: Any, **__: Any) -> None:
        raise OSError(30, "Read-only file system")

    for name in ("utime", "replace", "unlink", "mkdir"):
        monkeypatch.setattr(os, name, refused)
    monkeypatch.setattr(frame_cache, "blocks_limit", lambda: 0)
    assert np.array_equal(open_again()[rows], local[rows])
    assert requests == []
    assert np.array_equal(open_again()[rows + 40], local[rows + 40])
    assert requests
    assert before.items() <= files(folder).items()


def test_a_full_disk_slows_reading_and_changes_nothing(stored, monkeypatch):
    local, open_again, _, folder = stored

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    rows = np.array([3, 50])
    assert np.array_equal(open_again()[rows], local[rows])
    assert list(folder.iterdir()) == []


def test_a_shortened_file_in_a_store_is_told(stored, s3):
    local, open_again, _, _ = stored
    digest, _ = local._facts.shards[0]
    storage.write_bytes(storage.join(s3, "cache", SHARDS, digest), b"\0" * 100)
    with pytest.raises(DataError, match=r"ends at byte 100[\s\S]*pack it again"):
        open_again()[np.array([0])]


def test_where_blocks_lie_and_how_many(monkeypatch, tmp_path):
    monkeypatch.delenv(frame_cache.FOLDER_VARIABLE, raising=False)
    monkeypatch.delenv(frame_cache.LIMIT_VARIABLE, raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for _ in range(2):
        folder = frame_cache.blocks_folder()
        assert (folder.name, folder.stat().st_mode & 0o777) == (f"robolift-blocks-{os.getuid()}", 0o700)
    folder.rmdir()
    folder.symlink_to(tmp_path)
    with pytest.raises(UsageError, match=r"is no folder of this user's[\s\S]*set ROBOLIFT_FRAME_BLOCKS"):
        frame_cache.blocks_folder()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    assert not frame_cache.blocks_folder().exists()
    monkeypatch.setenv(frame_cache.FOLDER_VARIABLE, str(tmp_path))
    assert frame_cache.blocks_folder() == tmp_path
    assert frame_cache.blocks_limit() == 8_192_000_000
    monkeypatch.setenv(frame_cache.LIMIT_VARIABLE, "5")
    assert frame_cache.blocks_limit() == 5_000_000
    monkeypatch.setenv(frame_cache.LIMIT_VARIABLE, "much")
    with pytest.raises(UsageError, match=r"ROBOLIFT_FRAME_BLOCKS_MB is 'much', expected a whole number"):
        frame_cache.blocks_limit()


def test_the_array_of_a_run_and_the_cache_hold_the_same(opened, tmp_path):
    rows = np.arange(opened.num_frames)
    array = pack_frames(opened, opened.cameras, size=(20, 12), folder=tmp_path / "array")
    assert np.array_equal(packed(opened, tmp_path)[rows], array)
    assert set(os.listdir(tmp_path / "cache")) == {FACTS_FILE, INDEX_FILE, SHARDS}


def test_who_reads_frames_in_order_lets_them_go(opened, tmp_path, monkeypatch):
    let_go = []

    class Watched(frame_cache.mmap.mmap):
        def madvise(self, *_):
            let_go.append(len(self))

    frames = packed(opened, tmp_path)
    monkeypatch.setattr(frame_cache.mmap, "mmap", Watched)
    monkeypatch.setattr(frame_cache, "HELD_BYTES", 4 * frames[np.array([0])].nbytes)
    number = opened.num_frames
    for row in range(number - 1, -1, -1):
        frames[np.array([row])]
    assert let_go == []
    for row in range(number):
        frames[np.array([row])]
    assert let_go
