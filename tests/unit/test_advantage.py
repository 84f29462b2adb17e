from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robolift.errors import UsageError
from robolift.labeling.advantage import (
    ShortTail,
    gae_advantage,
    nstep_advantage,
    progress_advantage,
    rabc_weights,
)
from robolift.labeling.returns import Target, episode_spans, telescoped_rewards, value_targets


def starts_of(lengths: list[int]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths)])


def naive_nstep(rewards: np.ndarray, values: np.ndarray, starts: np.ndarray, lookahead: int) -> np.ndarray:
    """The definition, frame by frame."""
    found = []
    for begin, end in itertools.pairwise(starts):
        for t in range(begin, end):
            until = min(t + lookahead, end)
            total = sum(float(rewards[k]) for k in range(t, until))
            found.append(total + (float(values[t + lookahead]) if t + lookahead < end else 0.0) - float(values[t]))
    return np.array(found)


def naive_gae(rewards: np.ndarray, values: np.ndarray, starts: np.ndarray, gae_lambda: float) -> np.ndarray:
    found = np.zeros(len(rewards))
    for begin, end in itertools.pairwise(starts):
        carried = 0.0
        for t in reversed(range(begin, end)):
            following = values[t + 1] if t + 1 < end else 0.0
            carried = rewards[t] + following - values[t] + gae_lambda * carried
            found[t] = carried
    return found


def naive_progress(progress: np.ndarray, starts: np.ndarray, lookahead: int) -> np.ndarray:
    found = []
    for begin, end in itertools.pairwise(starts):
        for t in range(begin, end):
            m = min(t + lookahead, end - 1)
            found.append((progress[m] - progress[t]) * lookahead / (m - t) if m > t else 0.0)
    return np.array(found)


@st.composite
def signals(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Starts, rewards and values of a few episodes, some of one frame."""
    starts = starts_of(draw(st.lists(st.integers(1, 40), min_size=1, max_size=8)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = int(starts[-1])
    return starts, rng.normal(size=shape).astype(np.float32), rng.uniform(-1, 0, shape).astype(np.float32)


@settings(deadline=None)
@given(signals(), st.integers(1, 60))
def test_nstep_is_the_naive_loop(made: tuple[np.ndarray, np.ndarray, np.ndarray], lookahead: int) -> None:
    starts, rewards, values = made
    found = nstep_advantage(rewards, values, starts, lookahead=lookahead)
    assert found == pytest.approx(naive_nstep(rewards, values, starts, lookahead), abs=1e-12)


def test_nstep_around_the_end_of_an_episode() -> None:
    # T = 5, N = 2, powers of two: t = T-N-1 is the last frame with a bootstrap, T-N the first without.
    rewards = np.array([1, 2, 4, 8, 16], np.float32)
    values = np.array([100, 200, 300, 400, 500], np.float32)
    found = nstep_advantage(rewards, values, np.array([0, 5]), lookahead=2)
    assert found.tolist() == [
        1 + 2 + 300 - 100,
        2 + 4 + 400 - 200,
        4 + 8 + 500 - 300,  # t = T-N-1
        8 + 16 - 400,  # t = T-N
        16 - 500,  # t = T-1
    ]


@pytest.mark.parametrize("lookahead", [3, 4, 50])
def test_nstep_with_an_episode_no_longer_than_the_lookahead_is_the_whole_return(lookahead: int) -> None:
    rewards, values = np.array([1, 2, 4], np.float32), np.array([10, 20, 30], np.float32)
    assert nstep_advantage(rewards, values, np.array([0, 3]), lookahead=lookahead).tolist() == [-3, -14, -26]


def test_nstep_of_an_episode_of_one_frame() -> None:
    found = nstep_advantage(np.float32([-0.5]), np.float32([-0.25]), np.array([0, 1]), lookahead=50)
    assert found.tolist() == [-0.25]


@pytest.mark.parametrize("target", list(Target))
@pytest.mark.parametrize("lookahead", [1, 7, 50, 5000])
def test_a_perfect_value_model_leaves_no_advantage(target: Target, lookahead: int) -> None:
    rng = np.random.default_rng(3)
    lengths = rng.integers(1, 900, 40)
    starts = starts_of(lengths.tolist())
    targets = value_targets(starts, rng.integers(0, 3, 40), rng.random(40) < 0.4, target=target)
    rewards = telescoped_rewards(targets, starts)
    assert not nstep_advantage(rewards, targets, starts, lookahead=lookahead).any()
    assert not gae_advantage(rewards, targets, starts, gae_lambda=0.9).any()


@pytest.mark.parametrize(
    ("terminal", "body", "tail"),
    [(-1.0, -0.025, (-0.0245, 0.0)), (0.0, -0.025, (0.9755, 1.0))],
    ids=["pistar", "limb documents"],
)
def test_failure_tail_of_rewards_that_disagree_with_targets(
    terminal: float, body: float, tail: tuple[float, float]
) -> None:
    # The published figures: T = 2000, N = 50, a value of -1 throughout a failure, reward -1/T and a terminal reward.
    rewards = np.full(2000, -1 / 2000)
    rewards[-1] = terminal
    found = nstep_advantage(rewards, np.full(2000, -1.0), np.array([0, 2000]), lookahead=50)
    assert found[:1950] == pytest.approx(np.full(1950, body))
    assert (found[1950:].min(), found[1950:].max()) == pytest.approx(tail)


@settings(deadline=None)
@given(signals(), st.floats(0.01, 1.0))
def test_gae_is_the_naive_recursion(made: tuple[np.ndarray, np.ndarray, np.ndarray], gae_lambda: float) -> None:
    starts, rewards, values = (array.astype(np.float64) for array in made)
    found = gae_advantage(rewards, values, starts.astype(int), gae_lambda=gae_lambda)
    assert found == pytest.approx(naive_gae(rewards, values, starts.astype(int), gae_lambda), abs=1e-11)


def test_gae_of_three_frames() -> None:
    # d = [1 + 4 - 2, 2 + 8 - 4, 4 - 8] = [3, 6, -4], lambda = 1/2.
    rewards, values = np.float32([1, 2, 4]), np.float32([2, 4, 8])
    found = gae_advantage(rewards, values, np.array([0, 3]), gae_lambda=0.5)
    assert found.tolist() == [3 + 6 / 2 - 4 / 4, 6 - 4 / 2, -4]


def test_gae_with_lambda_one_is_the_return_less_the_value() -> None:
    starts = starts_of([30, 1, 17])
    rng = np.random.default_rng(0)
    rewards, values = rng.normal(size=48), rng.normal(size=48)
    whole = nstep_advantage(rewards, values, starts, lookahead=1000)
    assert gae_advantage(rewards, values, starts, gae_lambda=1.0) == pytest.approx(whole, abs=1e-12)


def test_kai0_progress_vectors() -> None:
    legacy, valid = progress_advantage(
        np.array([0, 0.1, 0.2, 0.3, 0.4]), np.array([0, 5]), lookahead=2, short_tail=ShortTail.KAI0_LEGACY
    )
    assert legacy == pytest.approx([0.2, 0.2, 0.2, 0.1, 0])
    assert valid.all()
    scaled, valid = progress_advantage(np.array([0, 0.1, 0.3, 0.6]), np.array([0, 4]), lookahead=2)
    assert scaled == pytest.approx([0.3, 0.5, 0.6, 0])
    assert valid.tolist() == [True, True, True, False]


def test_kai0_legacy_bends_linear_progress_and_ours_does_not() -> None:
    progress = np.linspace(0, 1, 200)
    legacy, _ = progress_advantage(progress, np.array([0, 200]), lookahead=50, short_tail=ShortTail.KAI0_LEGACY)
    assert legacy[[100, 150, 199]] == pytest.approx([0.2513, 0.2462, 0], abs=5e-5)
    scaled, _ = progress_advantage(progress, np.array([0, 200]), lookahead=50)
    assert scaled[:199] == pytest.approx(np.full(199, 50 / 199))


def test_dropped_tail_is_not_valid() -> None:
    advantage, valid = progress_advantage(np.arange(6.0), np.array([0, 4, 6]), lookahead=2, short_tail=ShortTail.DROP)
    assert valid.tolist() == [True, True, False, False, False, False]
    assert advantage[:2].tolist() == [2, 2]


@settings(deadline=None)
@given(signals(), st.integers(1, 60))
def test_progress_is_the_naive_loop(made: tuple[np.ndarray, np.ndarray, np.ndarray], lookahead: int) -> None:
    starts, _, progress = made
    found, _ = progress_advantage(progress, starts, lookahead=lookahead)
    assert found == pytest.approx(naive_progress(progress.astype(np.float64), starts, lookahead), abs=1e-12)


MEASURES: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]] = {
    "nstep": lambda r, v, s: nstep_advantage(r, v, s, lookahead=9),
    "gae": lambda r, v, s: gae_advantage(r, v, s, gae_lambda=0.95),
    "progress": lambda r, v, s: progress_advantage(v, s, lookahead=9)[0],
    "rabc": lambda r, v, s: rabc_weights(v, s, lookahead=9, kappa=9.0),
}


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("measure", list(MEASURES))
def test_the_order_of_the_episodes_changes_no_bit(measure: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 200, 30)
    starts = starts_of(lengths.tolist())
    rewards, values = rng.normal(size=(2, int(starts[-1])))
    order = rng.permutation(30)
    rows = np.concatenate([np.arange(starts[e], starts[e + 1]) for e in order])
    straight = MEASURES[measure](rewards, values, starts)
    permuted = MEASURES[measure](rewards[rows], values[rows], starts_of(lengths[order].tolist()))
    assert permuted.tolist() == straight[rows].tolist()


@pytest.mark.parametrize("measure", ["nstep", "gae", "progress"])
def test_an_episode_alone_has_the_advantage_it_has_among_others(measure: str) -> None:
    rng = np.random.default_rng(2)
    starts = starts_of([20, 1, 35, 8])
    rewards, values = rng.normal(size=(2, 64)).astype(np.float32) * 1000
    together = MEASURES[measure](rewards, values, starts)
    for span in episode_spans(starts):
        alone = MEASURES[measure](rewards[span], values[span], np.array([0, span.stop - span.start]))
        assert alone.tolist() == together[span].tolist()


def test_rabc_weights_by_hand() -> None:
    # Rises over 1 frame: .02 (> kappa), .004, -.01, and 0 in the last frame.
    progress = np.array([0.10, 0.12, 0.124, 0.114])
    rises = np.array([0.02, 0.004, -0.01, 0.0])
    mean, deviation = rises.mean(), rises.std()
    soft = [(rise - (mean - 2 * deviation)) / (4 * deviation + 1e-6) for rise in (0.004, 0.0)]
    assert 0 < soft[1] < soft[0] < 1
    found = rabc_weights(progress, np.array([0, 4]), lookahead=1)
    assert found == pytest.approx([1.0, soft[0], 0.0, soft[1]])


def test_rabc_floors_a_negative_mean_and_trusts_the_unknown() -> None:
    progress = np.array([0.9, 0.5, 0.5, np.nan, 0.1])
    rises = np.array([-0.4, 0.0, 0.0])  # the fourth is unknown on one side, the third on the other
    deviation = np.array([-0.4, 0.0, 0.0]).std()
    found = rabc_weights(progress, np.array([0, 5]), lookahead=1)
    soft = 2 * deviation / (4 * deviation + 1e-6)
    assert rises.mean() < 0
    assert found == pytest.approx([0.0, soft, 1.0, 1.0, soft], abs=1e-6)
    assert rabc_weights(np.full(3, np.nan), np.array([0, 3]), lookahead=1).tolist() == [1, 1, 1]


@pytest.mark.parametrize("call", ["nstep", "progress", "rabc"])
def test_lookahead_below_one_is_refused(call: str) -> None:
    two, starts = np.zeros(2), np.array([0, 2])
    with pytest.raises(UsageError, match="lookahead is 0, expected at least 1 frame"):
        {
            "nstep": lambda: nstep_advantage(two, two, starts, lookahead=0),
            "progress": lambda: progress_advantage(two, starts, lookahead=0),
            "rabc": lambda: rabc_weights(two, starts, lookahead=0),
        }[call]()


@pytest.mark.parametrize("gae_lambda", [0.0, -0.1, 1.01, float("nan")])
def test_gae_lambda_out_of_range_is_refused(gae_lambda: float) -> None:
    with pytest.raises(UsageError, match="gae_lambda"):
        gae_advantage(np.zeros(2), np.zeros(2), np.array([0, 2]), gae_lambda=gae_lambda)


def test_arrays_of_different_shapes_are_refused() -> None:
    with pytest.raises(UsageError, match=r"values has shape \(3,\), expected \(2,\)"):
        nstep_advantage(np.zeros(2), np.zeros(3), np.array([0, 2]), lookahead=1)
