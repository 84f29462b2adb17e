"""Who moves the robot: shares and lengths of bad stretches, chunks of a policy, takeovers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from robolift.sim import graphics

graphics.select("egl")

from robolift.sim import behaviours  # noqa: E402
from robolift.sim.behaviours import ChunkFollower, Demonstrator, SloppyOperator, Takeover  # noqa: E402
from robolift.sim.episodes import operator_for, run_episode  # noqa: E402
from robolift.sim.experts import Expert  # noqa: E402
from robolift.sim.plans import Behaviour, EpisodePlan, WorldSpec  # noqa: E402
from robolift.sim.world import World  # noqa: E402


@pytest.fixture(scope="module")
def expert():
    return Expert("pick-place-v3")


@pytest.fixture(scope="module")
def world():
    made = World(WorldSpec(task="pick-place-v3"))
    made.reset(0)
    return made


@pytest.mark.parametrize("bad_fraction", [0.0, 0.2, 0.5, 0.75])
def test_a_share_of_the_stretches_is_bad_and_none_is_shorter_than_a_tenth_of_a_second(world, expert, bad_fraction):
    operator = SloppyOperator(expert, noise=0.0, bad_fraction=bad_fraction, rng=np.random.default_rng(1))
    controls = [operator.act(world) for _ in range(8000)]
    good = [control.by_expert for control in controls]
    # About 1,000 stretches of 4 to 12 frames: the standard error of the share is at most 0.017.
    assert np.mean(good) == pytest.approx(1 - bad_fraction, abs=0.05)
    runs = [len(list(run)) for _, run in itertools.groupby(good)]
    assert min(runs[:-1], default=4) >= 4
    assert {control.control_mode for control in controls} == {"autonomous"}


def test_each_bad_behaviour_does_what_it_says(world, expert, monkeypatch):
    right = expert.act(world.observation)

    def bad(name):
        monkeypatch.setattr(behaviours, "BAD_BEHAVIOURS", (name,))
        operator = SloppyOperator(expert, noise=0.0, bad_fraction=0.5, rng=np.random.default_rng(1))
        return next(c.action for c in (operator.act(world) for _ in range(100)) if not c.by_expert)

    np.testing.assert_allclose(bad("freeze"), [0, 0, 0, right[3]])
    np.testing.assert_allclose(bad("fumble"), [*right[:3], -right[3]], rtol=1e-6)
    drift = bad("drift")
    assert 0.5 <= np.linalg.norm(drift[:3]) <= 1.0
    assert np.abs(drift[:3] - right[:3]).max() > 0.1
    # The expert asks for 10 per metre, unless it is at full speed anyway.
    missed = (bad("offset") - right)[:3]
    assert 0.4 <= np.linalg.norm(missed) <= 0.7 + 1e-6
    assert missed[2] == pytest.approx(0, abs=1e-6)


def test_noise_has_its_standard_deviation_and_actions_stay_in_range(world, expert):
    operator = Demonstrator(expert, noise=0.3, rng=np.random.default_rng(0))
    actions = np.stack([operator.act(world).action for _ in range(500)])
    assert actions.dtype == np.float32
    assert np.abs(actions).max() <= 1
    free = np.abs(expert.act(world.observation)) < 0.2
    assert free.any()
    assert actions[:, free].std(axis=0) == pytest.approx(0.3, rel=0.1)


def test_a_chunk_is_executed_in_part_and_in_order(world):
    operator = ChunkFollower(execute=2, noise=0.0, rng=np.random.default_rng(0))
    assert operator.hungry
    chunk = np.linspace(-2, 0.5, 12, dtype=np.float32).reshape(3, 4)
    operator.feed(chunk)
    acted = []
    while not operator.hungry:
        acted.append(operator.act(world))
    np.testing.assert_allclose([c.action for c in acted], np.clip(chunk[:2], -1, 1))
    assert [(c.control_mode, c.by_expert) for c in acted] == [("autonomous", None)] * 2


def test_the_expert_takes_over_once_and_for_good(world, expert):
    idle = ChunkFollower(execute=1, noise=0.0, rng=np.random.default_rng(0))
    rescuer = Demonstrator(expert, noise=0.0, rng=np.random.default_rng(0), control_mode="correcting")
    operator = Takeover(idle, rescuer, patience=3)
    modes = []
    for _ in range(7):
        operator.watch(world)  # the world stands still: no progress from the second frame on
        if operator.hungry:
            operator.feed(np.zeros((1, 4), np.float32))
        modes.append(operator.act(world).control_mode)
    assert modes == ["autonomous"] * 3 + ["correcting"] * 4


def test_a_takeover_episode_ends_under_the_expert(expert):
    moved = World(WorldSpec(task="pick-place-v3"))
    switched = 0
    for seed in range(6):
        plan = EpisodePlan(index=0, seed=seed, behaviour=Behaviour.TAKEOVER, action_noise=0.15, frames_after_success=2)
        with pytest.raises(StopIteration) as finished:
            next(run_episode(moved, plan, expert))
        columns = finished.value.value.columns
        corrected = columns["control_mode"] == "correcting"
        np.testing.assert_array_equal(columns["intervention"], corrected)
        assert (np.diff(corrected.astype(int)) >= 0).all()  # never handed back
        assert columns["is_good_gt"][corrected].all()
        switched += corrected.any()
    assert switched >= 3


@pytest.mark.parametrize(
    ("behaviour", "by_policy", "kind", "hungry"),
    [
        (Behaviour.DEMO, False, Demonstrator, False),
        (Behaviour.DEMO, True, Demonstrator, False),
        (Behaviour.AUTONOMOUS, False, SloppyOperator, False),
        (Behaviour.AUTONOMOUS, True, ChunkFollower, True),
        (Behaviour.TAKEOVER, True, Takeover, True),
    ],
)
def test_a_plan_names_its_operator(expert, behaviour, by_policy, kind, hungry):
    operator = operator_for(EpisodePlan(index=0, seed=1, behaviour=behaviour, by_policy=by_policy), expert)
    assert isinstance(operator, kind)
    assert operator.hungry is hungry
