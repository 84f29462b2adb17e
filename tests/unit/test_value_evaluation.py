"""How much of the held-out episodes is measured, by whom, and in which arithmetic."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from dot_world import DotDataset

from robolift.training import device
from robolift.training.distributed import ALONE, World
from robolift.value_model import evaluation, presets, train
from robolift.value_model.build import build
from robolift.value_model.evaluation import HeldOut, Seen, spread_over_episodes
from robolift.value_model.network import ModelShape
from robolift.value_model.pairs import AdvantagePairs
from robolift.value_model.recipe import Recipe

STARTS = np.array([0, 4, 5, 25, 30, 36])
ROWS = np.concatenate([np.arange(0, 25), np.arange(30, 36)])  # all but the fourth episode


@pytest.fixture(autouse=True)
def one_thread():
    with device.threads(1):
        yield


def per_episode(chosen):
    return np.bincount(np.searchsorted(STARTS, chosen, side="right") - 1, minlength=5).tolist()


@pytest.mark.parametrize(
    ("count", "expected"),
    [(4, [1, 1, 1, 0, 1]), (13, [4, 1, 4, 0, 4]), (17, [4, 1, 6, 0, 6]), (30, [4, 1, 19, 0, 6])],
)
def test_frames_are_spread_evenly_over_the_episodes_as_far_as_they_go(count, expected):
    chosen = spread_over_episodes(ROWS, STARTS, count, seed=3)
    assert per_episode(chosen) == expected
    assert np.all(np.diff(chosen) > 0)
    assert set(chosen) <= set(ROWS)
    assert np.array_equal(chosen, spread_over_episodes(ROWS, STARTS, count, seed=3))


def test_the_choice_is_the_seed_s_and_all_frames_are_taken_by_default():
    assert len({tuple(spread_over_episodes(ROWS, STARTS, 6, seed=seed)) for seed in range(5)}) == 5
    assert {tuple(per_episode(spread_over_episodes(ROWS, STARTS, 2, seed=seed))) for seed in range(20)} > {
        (1, 1, 0, 0, 0),
        (0, 0, 1, 0, 1),
    }
    for count in (0, len(ROWS), 100):
        assert spread_over_episodes(ROWS, STARTS, count, seed=3) is ROWS


def held_out(head, world=ALONE, **changes):
    """A held-out set of four episodes and a model of towers that was never trained."""
    dataset = DotDataset(lengths=(9, 7, 5, 8, 6, 9), cameras=("front",))
    recipe = Recipe(head=head, val_fraction=0.7, state_keys=[], cameras=["front"], image_size=(28, 28), action_weight=0)
    data = train.prepare(recipe, dataset, dataset.targets if head == "distribution" else None)
    torch.manual_seed(0)
    shape = ModelShape(num_cameras=1, state_dim=0, tasks=dataset.tasks, prompts=((2, 5), (2, 6, 7)))
    model = build(replace(presets.pi05_dummy(), head=head), shape)
    return HeldOut(
        model=model,
        data=data,
        images=dataset.all_frames(("front",), (28, 28)),
        pairs=AdvantagePairs(starts=data.starts, seed=0),
        world=world,
        **changes,
    )


@pytest.mark.parametrize("head", ["relative", "distribution"])
def test_processes_compute_equally_often_and_find_together_what_one_finds(head, monkeypatch):
    monkeypatch.setattr(evaluation, "TOWER_BATCH", 4)
    whole = held_out(head, num_frames=18).measure()  # five parts for two processes: the second does one again
    calls, tables = [], []
    of = Seen.of.__func__
    monkeypatch.setattr(Seen, "of", classmethod(lambda cls, *given: (calls.append(len(given[3])), of(cls, *given))[1]))
    monkeypatch.setattr(evaluation, "sum_over", lambda _, found: (tables.append(found), found)[1])
    for rank in (0, 1):
        held_out(head, World(rank, 2), num_frames=18).measure()
    assert len(calls) == 6
    assert max(calls) <= 4 * (3 if head == "relative" else 1)  # what is looked at is bounded, however long the episode
    monkeypatch.setattr(evaluation, "sum_over", lambda *_: tables[0] + tables[1])
    assert held_out(head, num_frames=18).measure() == pytest.approx(whole, rel=1e-6)
    assert not np.any((tables[0] != 0).numpy() & (tables[1] != 0).numpy())


def test_towers_are_measured_in_the_recipe_s_precision_and_heads_in_float32():
    exact, rough = held_out("relative"), held_out("relative", precision="bfloat16")
    seen = []
    rough.model.language.layers[0].self_attn.q_proj.register_forward_hook(lambda _, x, y: seen.append(y.dtype))
    rough.model.value_head.register_forward_hook(lambda _, x, y: seen.append(y.dtype))
    loss, theirs = exact.measure()["loss"], rough.measure()["loss"]
    assert set(seen) == {torch.bfloat16, torch.float32}
    assert seen[1] == torch.float32
    assert loss != theirs
    assert theirs == pytest.approx(loss, rel=0.05)
