"""Folders in which outputs are made before they are renamed into place."""

from __future__ import annotations

import shutil
import threading

import pytest

from robolift import staging


def test_a_file_system_without_locks_loses_nobody_s_work(tmp_path, monkeypatch):
    def unsupported(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(staging.fcntl, "flock", unsupported)
    first = staging.claim(tmp_path, "out")
    second = staging.claim(tmp_path, "out")

    assert first.path.is_dir()
    first.release()
    second.release()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_taken_before_it_was_locked_is_made_again(tmp_path, monkeypatch):
    lock = staging.fcntl.flock
    taken = []

    def take_first(handle, how):
        lock(handle, how)
        if not taken:
            taken.extend(tmp_path.glob(".out.*"))
            shutil.rmtree(taken[0])

    monkeypatch.setattr(staging.fcntl, "flock", take_first)
    found = staging.claim(tmp_path, "out")

    assert found.path.is_dir()
    assert found.path != taken[0]
    found.release()


def test_a_reader_never_meets_a_half_written_folder(tmp_path):
    stop = threading.Event()
    seen = []

    def read():
        last = False
        while not last:
            last = stop.is_set()  # asked before looking: at the end it looks once more
            for folder in tmp_path.glob("out-*"):
                seen.append({p.name for p in folder.iterdir()})

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(50):
        staged = staging.claim(tmp_path, f"out-{number}")
        for name in ("a", "b", "manifest.json"):
            (staged.path / name).write_bytes(b"x" * 10_000)
        staging.rename_into_place(staged.path, tmp_path / f"out-{number}", marker="manifest.json")
        staged.release()
    stop.set()
    reader.join()

    assert seen
    assert all(names == {"a", "b", "manifest.json"} for names in seen)


def test_an_error_of_the_disk_while_publishing_is_not_taken_for_a_rival(tmp_path):
    with pytest.raises(FileNotFoundError):
        staging.rename_into_place(tmp_path / "none", tmp_path / "out", marker="manifest.json")
