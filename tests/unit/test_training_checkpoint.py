from __future__ import annotations

import json

import pytest
import torch

from robolift import storage
from robolift.errors import DataError
from robolift.training.checkpoint import ResumeState, StateStore


def state(step):
    return ResumeState(step=step, tensors={"w": torch.full((3,), step / 7)}, document={"curve": [step, 0.1]})


@pytest.mark.parametrize("scheme", ["file", "memory"])
def test_the_latest_state_comes_back_and_older_ones_go(scheme, tmp_path):
    store = StateStore(f"{scheme}://{tmp_path}/work")
    assert store.load() is None
    store.save(state(10))
    store.save(state(20))
    found = store.load()
    assert (found.step, found.document) == (20, {"curve": [20, 0.1]})
    assert torch.equal(found.tensors["w"], torch.full((3,), 20 / 7))
    assert {name.split("/")[0] for name, _ in storage.list_files(store.uri)} == {"latest.json", "step-00000020"}
    storage.remove(store.uri)


def test_a_state_without_its_pointer_does_not_count(tmp_path):
    store = StateStore(str(tmp_path))
    store.save(state(10))
    pointer = (tmp_path / "latest.json").read_bytes()
    store.save(state(20))
    # As if killed after writing step 30's files, before its pointer.
    storage.write_bytes(str(tmp_path / "step-00000030" / "state.safetensors"), b"half")
    assert store.load().step == 20
    (tmp_path / "latest.json").write_bytes(pointer)
    with pytest.raises(DataError, match="step-00000010"):
        store.load()


def test_saving_a_step_again_keeps_it(tmp_path):
    store = StateStore(str(tmp_path))
    store.save(state(10))
    store.save(state(10))
    assert store.load().step == 10


def test_damage_is_named(tmp_path):
    store = StateStore(str(tmp_path))
    store.save(state(10))
    path = tmp_path / "step-00000010" / "state.json"
    path.write_text(json.dumps({"curve": [9, 0.1]}))
    with pytest.raises(DataError, match=r"damaged(.|\n)*state\.json(.|\n)*delete"):
        store.load()
