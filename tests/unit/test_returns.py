from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robolift.errors import UsageError
from robolift.labeling.returns import (
    Target,
    check_starts,
    episode_of_frame,
    episode_spans,
    frames_to_end,
    telescoped_rewards,
    value_targets,
)


def starts_of(lengths: list[int]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths)])


ONE_TASK = np.array([0, 0, 0])


@st.composite
def episodes(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    lengths = draw(st.lists(st.integers(1, 400), min_size=1, max_size=12))
    task = draw(st.lists(st.integers(0, 3), min_size=len(lengths), max_size=len(lengths)))
    failed = draw(st.lists(st.booleans(), min_size=len(lengths), max_size=len(lengths)))
    return starts_of(lengths), np.array(task), np.array(failed)


def test_task_max_targets_of_three_episodes() -> None:
    # Tmax = 4 and C = 4, so everything is in eighths; the two-frame success starts nearer to 0 than the long one.
    starts = starts_of([4, 2, 3])
    targets = value_targets(starts, ONE_TASK, np.array([False, False, True]))
    assert targets.dtype == np.float32
    assert (targets * 8).tolist() == [-3, -2, -1, 0, -1, 0, -6, -5, -4]
    assert not np.signbit(targets[3])


def test_failure_cost_widens_the_gap() -> None:
    # Tmax = 3 and C = 6: ninths.
    targets = value_targets(starts_of([3, 2]), np.array([0, 0]), np.array([False, True]), failure_cost=2.0)
    assert targets * 9 == pytest.approx([-2, -1, 0, -7, -6])


def test_each_task_has_its_own_longest_episode() -> None:
    targets = value_targets(starts_of([4, 2]), np.array([1, 0]), np.array([False, False]))
    assert targets.tolist() == [-3 / 8, -2 / 8, -1 / 8, 0, -1 / 4, 0]


def test_per_episode_targets_are_pistars() -> None:
    targets = value_targets(starts_of([4, 2, 3]), ONE_TASK, np.array([False, False, True]), target=Target.PER_EPISODE)
    assert targets.tolist() == [-0.75, -0.5, -0.25, 0, -0.5, 0, -1, -1, -1]


def test_two_successes_of_different_length() -> None:
    starts, task, failed = starts_of([200, 100]), np.array([0, 0]), np.array([False, False])
    scaled = value_targets(starts, task, failed)
    assert scaled[0] == pytest.approx(-199 / 400)
    assert scaled[200] == pytest.approx(-99 / 400)
    own = value_targets(starts, task, failed, target=Target.PER_EPISODE)
    assert abs(own[0] - own[200]) <= 1 / 100


def test_rewards_of_a_success_and_a_failure() -> None:
    starts = starts_of([3, 2])
    targets = np.array([-2, -1, 0, -5, -4], np.float32) / 8
    assert (telescoped_rewards(targets, starts) * 8).tolist() == [-1, -1, 0, -1, -4]


@settings(deadline=None)
@given(episodes(), st.sampled_from([1.0, 1.5, 3.0]))
def test_task_max_properties(made: tuple[np.ndarray, np.ndarray, np.ndarray], failure_cost: float) -> None:
    starts, task, failed = made
    targets = value_targets(starts, task, failed, failure_cost=failure_cost)
    assert targets.min() >= -1
    assert targets.max() <= 0
    of_episode = episode_of_frame(starts)
    for number, span in enumerate(episode_spans(starts)):
        assert (np.diff(targets[span]) >= 0).all()
        assert failed[number] or targets[span][-1] == 0
    for number in np.unique(task):
        same = task[of_episode] == number
        good, bad = targets[same & ~failed[of_episode]], targets[same & failed[of_episode]]
        assert not len(good) or not len(bad) or bad.max() <= good.min()


@settings(deadline=None)
@given(episodes(), st.sampled_from(Target), st.sampled_from([0.5, 1.0, 2.7]))
def test_rewards_summed_to_the_end_are_exactly_the_target(
    made: tuple[np.ndarray, np.ndarray, np.ndarray], target: Target, failure_cost: float
) -> None:
    starts, task, failed = made
    targets = value_targets(starts, task, failed, target=target, failure_cost=failure_cost)
    rewards = telescoped_rewards(targets, starts)
    for span in episode_spans(starts):
        assert np.cumsum(rewards[span][::-1].astype(np.float64))[::-1].tolist() == targets[span].tolist()


def test_frame_counts() -> None:
    starts = starts_of([3, 1, 2])
    assert frames_to_end(starts).tolist() == [2, 1, 0, 0, 1, 0]
    assert episode_of_frame(starts).tolist() == [0, 0, 0, 1, 2, 2]
    assert list(episode_spans(starts)) == [slice(0, 3), slice(3, 4), slice(4, 6)]


@pytest.mark.parametrize("starts", [[0], [1, 4], [0, 3], [0, 2, 2, 4], [0, 3, 2, 4], [[0, 4]]])
def test_starts_that_cut_nothing_into_episodes_are_refused(starts: list[int]) -> None:
    with pytest.raises(UsageError, match="starts must rise from 0 to 4"):
        check_starts(np.array(starts), 4)


def test_shapes_are_checked() -> None:
    with pytest.raises(UsageError, match=r"task \(1,\) and failed \(2,\) must be \(2,\)"):
        value_targets(starts_of([2, 2]), np.array([0]), np.array([True, False]))
    with pytest.raises(UsageError, match=r"targets has shape \(3,\), expected \(4,\)"):
        telescoped_rewards(np.zeros(3, np.float32), starts_of([2, 2]))


def test_a_failure_that_costs_nothing_is_a_matter_of_time_alone() -> None:
    targets = value_targets(starts_of([4, 2]), np.array([0, 0]), np.array([False, True]), failure_cost=0.0)
    assert targets.tolist() == [-0.75, -0.5, -0.25, 0, -0.25, 0]


@pytest.mark.parametrize("cost", [-0.1, -1.0, float("nan")])
def test_failure_cost_must_not_be_negative(cost: float) -> None:
    with pytest.raises(UsageError, match="failure_cost"):
        value_targets(starts_of([2]), np.array([0]), np.array([True]), failure_cost=cost)
