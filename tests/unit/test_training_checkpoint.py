from __future__ import annotations

import errno
import hashlib
import json
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
import safetensors.numpy
import safetensors.torch
import torch

from robolift import storage, tensor_files
from robolift.errors import DataError, UsageError
from robolift.training import checkpoint
from robolift.training.checkpoint import ResumeState, StateStore
from robolift.training.distributed import ALONE


def state(step):
    return ResumeState(
        step=step,
        weights={"w": torch.full((3,), step / 7)},
        tensors={"mean.w": torch.full((3,), step / 11)},
        document={"curve": [step, 0.1]},
    )


def latest(store):
    with store.opened() as found:
        return found.step


def files(folder):
    return {path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file()}


@pytest.mark.parametrize("scheme", ["file", "memory"])
def test_the_latest_state_comes_back_and_older_ones_go(scheme, tmp_path):
    store = StateStore(f"{scheme}://{tmp_path}/work")
    with store.opened() as nothing:
        assert nothing is None
    store.save(state(10))
    store.save(state(20))
    with store.opened() as found:
        assert (found.step, found.document) == (20, {"curve": [20, 0.1], "step": 20})
        assert torch.equal(found.weight("w"), torch.full((3,), 20 / 7))
        assert (found.group("mean"), found.group("me")) == (["w"], [])
        assert torch.equal(found.tensor("mean", "w"), torch.full((3,), 20 / 11))
    assert [name for name, _ in storage.list_files(store.uri)] == [
        "checkpoints/20/metadata.json",
        "checkpoints/20/model.safetensors",
        "checkpoints/20/optimizer.safetensors",
        "latest.json",
    ]
    storage.remove(store.uri)


def test_a_state_without_its_pointer_does_not_count(tmp_path):
    store = StateStore(str(tmp_path))
    store.save(state(10))
    pointer = (tmp_path / "latest.json").read_bytes()
    store.save(state(20))
    # As if killed after writing step 30's files, before its pointer.
    storage.write_bytes(str(tmp_path / "checkpoints" / "30" / "optimizer.safetensors"), b"half")
    assert latest(store) == 20
    (tmp_path / "latest.json").write_bytes(pointer)
    with pytest.raises(DataError, match="checkpoints/10/"):
        latest(store)


def test_saving_a_step_again_keeps_it(tmp_path):
    store = StateStore(str(tmp_path))
    store.save(state(10))
    store.save(state(10))
    assert latest(store) == 10


@pytest.mark.parametrize("name", ["metadata.json", "optimizer.safetensors"])
def test_damage_is_named(tmp_path, name):
    store = StateStore(str(tmp_path))
    store.save(state(10))
    path = tmp_path / "checkpoints" / "10" / name
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with pytest.raises(DataError, match=rf"damaged(.|\n)*{name}(.|\n)*delete"):
        latest(store)


@pytest.mark.parametrize("scheme", ["file", "memory"])
def test_every_so_many_steps_a_state_is_kept_and_copied_whole(scheme, tmp_path):
    store = StateStore(f"{scheme}://{tmp_path}/work", keep_every=20, assets=lambda step: {"checkpoint.json": [step]})
    for step in (10, 20, 30, 40, 45):
        store.save(state(step))
    kept = {name.split("/")[1] for name, _ in storage.list_files(store.uri) if name.startswith("checkpoints/")}
    assert kept == {"20", "40", "45"}  # and the newest, to go on from
    # A process killed while it wrote leaves a file that no state has.
    storage.write_bytes(storage.join(store.uri, "checkpoints/20/.model.safetensors.x1"), b"half")
    out = tmp_path / "out"
    store.copy_kept(out, 45)
    names = ("assets/checkpoint.json", "metadata.json", "model.safetensors", "optimizer.safetensors")
    assert files(out) == {f"checkpoints/{step}/{name}" for step in (20, 40) for name in names}
    folder = out / "checkpoints" / "40"
    assert json.loads((folder / "assets" / "checkpoint.json").read_text()) == [40]
    assert json.loads((folder / "metadata.json").read_text()) == {"step": 40, "curve": [40, 0.1]}
    assert safetensors.numpy.load_file(folder / "model.safetensors")["w"][0] == pytest.approx(40 / 7)
    storage.remove(store.uri)


def test_tensors_are_written_as_the_library_would_and_one_at_a_time(tmp_path, monkeypatch):
    tensors = {"b": torch.arange(6.0).reshape(2, 3).T, "a": torch.tensor(2.5, dtype=torch.float64), "c": torch.ones(1)}
    events = []
    monkeypatch.setattr(tensor_files, "_dump", lambda *_, dump=tensor_files._dump: (events.append("written"), dump(*_)))
    monkeypatch.setattr(checkpoint, "full", lambda *_, full=checkpoint.full: (events.append("fetched"), full(*_))[1])
    digest = checkpoint.write_tensors(str(tmp_path / "x"), tensors, ALONE)
    expected = safetensors.torch.save({name: tensor.contiguous() for name, tensor in tensors.items()})
    assert (tmp_path / "x").read_bytes() == expected
    assert digest == hashlib.sha256(expected).hexdigest()
    assert events == ["fetched", "written"] * 3


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors"])
def test_a_state_that_a_dying_attempt_replaces_while_it_is_read_is_read_again(tmp_path, monkeypatch, file):
    dying, reading = StateStore(str(tmp_path)), StateStore(str(tmp_path))
    dying.save(state(1))
    digest, replaced = storage.sha256_file, []

    def replacing(path):
        found = digest(path)
        if path.name == file and not replaced:
            replaced.append(path)
            dying.save(state(2))
        return found

    monkeypatch.setattr(storage, "sha256_file", replacing)
    with reading.opened() as saved:
        assert saved.step == 2
    assert replaced


def test_a_kill_while_a_state_goes_to_a_store_leaves_nothing_after_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    killed = """
import os, sys, tempfile, torch
from robolift import storage
from robolift.training import checkpoint
tempfile.tempdir = sys.argv[1]
storage.upload = lambda path, uri: os._exit(9)
checkpoint.write_tensors("memory://state/model.safetensors", {"w": torch.ones(3)}, checkpoint.ALONE)
"""
    assert subprocess.run([sys.executable, "-c", killed, str(tmp_path)], check=False).returncode == 9
    assert [path.name for path in tmp_path.rglob("*.safetensors")] == ["model.safetensors"]
    checkpoint.write_tensors("memory://state/model.safetensors", {"w": torch.ones(3)}, ALONE)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told(tmp_path, monkeypatch):
    @contextmanager
    def full_disk(*_):
        raise OSError(errno.ENOSPC, "No space left on device")
        yield

    monkeypatch.setattr(checkpoint, "writing", full_disk)
    with pytest.raises(UsageError, match=r"no room is left for model\.safetensors in .*; free some, or set TMPDIR"):
        checkpoint.write_tensors(str(tmp_path / "model.safetensors"), {"w": torch.ones(3)}, ALONE)


def test_nothing_is_copied_when_nothing_is_kept(tmp_path):
    store = StateStore(str(tmp_path / "work"))
    store.save(state(10))
    store.copy_kept(tmp_path / "out", 10)
    assert not (tmp_path / "out").exists()
