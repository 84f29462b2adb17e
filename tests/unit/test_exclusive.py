"""One of several writers wins, on a disk and on S3, in threads and in processes."""

from __future__ import annotations

import errno
import multiprocessing
import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from robolift import exclusive, storage
from robolift.errors import UsageError

WRITERS = 4
ROUNDS = 6


@pytest.fixture(params=["disk", "s3"])
def place(request, tmp_path):
    return str(tmp_path / "folder") if request.param == "disk" else request.getfixturevalue("s3")


def test_only_what_is_not_there_is_written(place):
    uri = storage.join(place, "deep", "one.json")
    assert exclusive.create(uri, b"first")
    assert not exclusive.create(uri, b"second")
    assert storage.read_bytes(uri) == b"first"
    assert storage.list_files(place) == [("deep/one.json", 5)]


def test_of_racing_threads_one_wins(place):
    barrier = threading.Barrier(WRITERS)

    def write(number: int) -> list[bool]:
        won = []
        for turn in range(ROUNDS):
            barrier.wait()
            won.append(exclusive.create(storage.join(place, f"{turn}.json"), str(number).encode() * 1000))
        return won

    with ThreadPoolExecutor(WRITERS) as pool:
        wins = list(pool.map(write, range(WRITERS)))
    for turn in range(ROUNDS):
        winners = [number for number in range(WRITERS) if wins[number][turn]]
        assert len(winners) == 1
        assert storage.read_bytes(storage.join(place, f"{turn}.json")) == str(winners[0]).encode() * 1000


def race(place, number, gate, results):
    gate.wait()
    results.put([(turn, number) for turn in range(ROUNDS) if exclusive.create(f"{place}/{turn}", b"%d" % number)])


def test_of_racing_processes_one_wins(place):
    context = multiprocessing.get_context("spawn")
    gate, results = context.Barrier(2), context.Queue()
    racers = [context.Process(target=race, args=(place, number, gate, results)) for number in range(2)]
    for racer in racers:
        racer.start()
    won = results.get(timeout=200) + results.get(timeout=200)
    for racer in racers:
        racer.join(timeout=200)
    assert sorted(turn for turn, _ in won) == list(range(ROUNDS))
    for turn, number in won:
        assert storage.read_bytes(f"{place}/{turn}") == b"%d" % number


def test_a_reader_of_a_disk_never_sees_a_part(tmp_path):
    content = b"x" * (4 << 20)
    uri, seen, done = str(tmp_path / "big"), [], threading.Event()

    def read() -> None:
        while not done.is_set():
            if os.path.exists(uri):
                seen.append(os.path.getsize(uri))

    reader = threading.Thread(target=read)
    reader.start()
    assert exclusive.create(uri, content)
    done.set()
    reader.join()
    assert set(seen) <= {len(content)}
    assert stat.S_IMODE(Path(uri).stat().st_mode) == 0o644
    assert os.listdir(tmp_path) == ["big"]


def test_a_folder_can_be_listed_while_it_is_written_to(tmp_path):
    """Temporary files come and go between the look into the folder and the look at the file."""
    done, failures = threading.Event(), []

    def look() -> None:
        while not done.is_set():
            try:
                storage.list_files(str(tmp_path))
            except Exception as error:
                failures.append(error)

    readers = [threading.Thread(target=look) for _ in range(3)]
    for reader in readers:
        reader.start()
    for number in range(150):
        exclusive.create(str(tmp_path / str(number)), b"x")
    done.set()
    for reader in readers:
        reader.join()
    assert failures == []


def test_where_nothing_may_be_written_is_an_error(tmp_path, s3):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="can't be written"):
        exclusive.create(str(tmp_path / "file" / "x"), b"")
    with pytest.raises(UsageError, match="can't be written"):
        exclusive.create("s3://no-such-bucket-here/x", b"")


def test_memory_behaves_alike():
    uri = f"memory://{os.urandom(8).hex()}/x"
    assert exclusive.create(uri, b"1")
    assert not exclusive.create(uri, b"2")


@pytest.mark.parametrize("code", ["PreconditionFailed", "ConditionalRequestConflict"])
def test_a_refusal_in_other_words_than_amazons_is_one(s3, monkeypatch, code):
    """MinIO's says not which condition failed, and s3fs makes another error of it."""
    from botocore.exceptions import ClientError
    from s3fs.errors import translate_boto_error

    def refuse(*_, **__):
        error = ClientError({"Error": {"Code": code, "Message": "no"}}, "PutObject")
        raise translate_boto_error(error)

    fs, _ = storage.filesystem(s3)
    monkeypatch.setattr(fs, "pipe_file", refuse)
    assert not exclusive.create(f"{s3}/x", b"")


def test_a_write_whose_answer_was_lost_is_ones_own(s3, monkeypatch):
    """The client sends it again and is told that the name is taken, by what it wrote itself."""
    fs, _ = storage.filesystem(s3)
    real = type(fs).pipe_file

    def sent_twice(path, content, **given):
        real(fs, path, content, **given)
        return real(fs, path, content, **given)

    monkeypatch.setattr(fs, "pipe_file", sent_twice)
    assert exclusive.create(f"{s3}/x", b"mine")
    assert storage.read_bytes(f"{s3}/x") == b"mine"
    assert not exclusive.create(f"{s3}/x", b"yours")


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP])
def test_a_disk_without_hard_links_is_named(tmp_path, monkeypatch, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(UsageError, match="this disk makes no hard links"):
        exclusive.create(str(tmp_path / "x"), b"")
    assert os.listdir(tmp_path) == []
