"""Batches of value training made by processes of their own: the same weights to the bit, resumed or not."""

from __future__ import annotations

import contextlib
import os
import signal

import numpy as np
import pytest
from dot_world import DotDataset

from robolift.errors import UsageError
from robolift.stages.stage import find, parse_config
from robolift.training.distributed import World
from robolift.training.stopping import TrainingStoppedError
from robolift.value_model import train
from robolift.value_model.objective import ValueObjective
from robolift.value_model.recipe import Recipe

FAST = {
    "image_size": [12, 12],
    "steps": 6,
    "batch_size": 8,
    "warmup_steps": 1,
    "val_fraction": 0.25,
    "log_every": 2,
    "eval_every": 3,
    "save_every": 4,
    "accumulate": 2,
}


def run(folder, **changes):
    dataset = DotDataset()
    recipe = Recipe(**{**FAST, **changes})
    folder.mkdir(parents=True, exist_ok=True)
    places = train.Places(dataset_uri="", targets_uri="", work_uri=f"{folder}.work", folder=str(folder))
    targets = dataset.targets if recipe.head == "distribution" else None
    train.train_here(recipe, places, World(), dataset, train.prepare(recipe, dataset, targets))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def objective(**changes):
    recipe = Recipe(**{**FAST, **changes})
    dataset = DotDataset()
    data = train.prepare(recipe, dataset, dataset.targets if recipe.head == "distribution" else None)
    model = train.initial_model(train.describe(recipe, dataset, data), seed=0)
    images = dataset.all_frames(data.cameras, recipe.image_size)
    return ValueObjective(model=model, data=data, images=images, recipe=recipe, world=World())


def test_weights_do_not_depend_on_who_makes_the_batches_nor_on_a_stop(tmp_path, monkeypatch):
    changes = {"head": "relative", "shuffle_block": 4, "shuffle_window": 3}
    alone, two = (run(tmp_path / str(workers), **changes, loader_workers=workers) for workers in (0, 2))
    assert alone == two
    losses = ValueObjective.losses

    def asked_to_stop(self, step, part=0):
        if step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return losses(self, step, part)

    with monkeypatch.context() as patch:
        patch.setattr(ValueObjective, "losses", asked_to_stop)
        with pytest.raises(TrainingStoppedError, match="stopped after step 3"):
            run(tmp_path / "stopped", **changes, loader_workers=1)
    assert run(tmp_path / "stopped", **changes, loader_workers=1) == alone


def test_any_step_can_be_asked_for_and_its_parts_are_made_once(monkeypatch):
    with contextlib.closing(objective()) as found:
        asked = []
        make = type(found.batches).__call__
        monkeypatch.setattr(type(found.batches), "__call__", lambda self, step: asked.append(step) or make(self, step))
        first = [found.losses(0, part)["loss"].item() for part in (0, 1)]
        again = [found.losses(4, part)["loss"].item() for part in (0, 1)]
        assert [found.losses(0, part)["loss"].item() for part in (0, 1)] == first != again
    assert asked.count(4) == 1


def test_what_a_step_reads_is_where_it_should_be():
    found = objective(shift_px=0, input_noise=0, brightness=0)
    first, second = found.batches(3)
    rows = found.batches.frames(3)[:, 0]
    for batch, part in ((first, rows[:4]), (second, rows[4:])):
        assert np.array_equal(batch.images, found.images[part])
        assert np.array_equal(batch.state[:, 0], found.data.states[part])
        assert batch.target.tolist() == found.data.targets[part].tolist()
        assert batch.tasks.tolist() == found.data.tasks[part].tolist()
        assert batch.actions.shape == (4, 6, 2)
        assert np.array_equal(batch.actions[:, 0], found.data.actions[part])
        assert batch.real[:, 0].all()
        assert (batch.gain == 1).all()


def test_blocks_are_another_order_and_workers_are_no_part_of_the_result():
    by_row, by_block = objective().batches, objective(shuffle_block=4, shuffle_window=2).batches
    assert by_row.frames(0).tolist() != by_block.frames(0).tolist()
    # Two blocks of four neighbouring training frames.
    assert len(set((np.searchsorted(by_block.data.train_rows, by_block.frames(0)[:, 0]) // 4).tolist())) == 2
    for stage in ("train_value", "train_policy"):
        config = find(stage).Config
        assert "loader_workers" in config.RUNTIME
        assert not {"shuffle_block", "shuffle_window"} & config.RUNTIME
    with pytest.raises(UsageError, match="loader_workers"):
        parse_config("train_value", {"loader_workers": -1})
