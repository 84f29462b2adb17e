"""Progress of every frame from anchors, and the reward derived from it."""

from __future__ import annotations

from itertools import pairwise
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robolift.errors import UsageError
from robolift.labeling.progress import interpolate_anchors
from robolift.labeling.rewards import Reward, derive_reward
from robolift.stages.merge_rewards import Config

NAN = np.nan


def interpolate(starts, anchors):
    """Interpolate anchors given as (episode, frame, value)."""
    episode, frame, value = (np.array(part) for part in zip(*anchors, strict=True))
    return interpolate_anchors(np.array(starts), episode, frame, value.astype(float))


def test_linear_between_anchors_and_held_outside_them():
    found = interpolate([0, 6, 9], [(0, 1, 0.2), (0, 4, 0.8), (1, 1, 0.5)])
    assert found == pytest.approx([0.2, 0.2, 0.4, 0.6, 0.8, 0.8, 0.5, 0.5, 0.5])


def test_an_episode_without_anchors_stays_unknown_and_borrows_nothing():
    found = interpolate([0, 2, 5, 7], [(0, 0, 0.1), (2, 1, 0.9)])
    np.testing.assert_array_equal(found, [0.1, 0.1, NAN, NAN, NAN, 0.9, 0.9])


def test_an_anchor_without_a_value_is_none():
    found = interpolate([0, 3, 4], [(0, 0, 0.0), (0, 1, NAN), (0, 2, 1.0), (1, 0, NAN)])
    np.testing.assert_array_equal(found, [0.0, 0.5, 1.0, NAN])
    assert np.isnan(interpolate_anchors(np.array([0, 2]), np.array([], int), np.array([], int), np.array([]))).all()


@pytest.mark.parametrize(
    ("anchors", "message"),
    [
        ([(0, 3, 0.1)], "episode 0, frame 3: there is no such frame"),
        ([(1, 0, 0.1)], "episode 1, frame 0: there is no such frame"),
        ([(0, 1, 0.1), (0, 0, 0.1)], "sorted by episode and frame, each once"),
        ([(0, 1, 0.1), (0, 1, 0.1)], "sorted by episode and frame, each once"),
    ],
)
def test_anchors_that_are_none_are_refused(anchors, message):
    with pytest.raises(UsageError, match=message):
        interpolate([0, 3], anchors)


def test_shapes_must_agree():
    with pytest.raises(UsageError, match="value has shape"):
        interpolate_anchors(np.array([0, 3]), np.array([0]), np.array([1]), np.array([0.1, 0.2]))
    with pytest.raises(UsageError, match="one number an anchor"):
        interpolate_anchors(np.array([0, 3]), np.array([0, 0]), np.array([1]), np.array([0.1]))


@st.composite
def labelled_episodes(draw):
    """Some episodes of a few frames, each with anchors at some of them."""
    episodes = []
    for _ in range(draw(st.integers(1, 4))):
        length = draw(st.integers(1, 12))
        frames = sorted(draw(st.sets(st.integers(0, length - 1))))
        values = [draw(st.floats(0, 1, allow_subnormal=False)) for _ in frames]
        episodes.append((length, frames, values))
    return episodes


def lay_out(episodes):
    starts = np.concatenate([[0], np.cumsum([length for length, _, _ in episodes])])
    episode = np.repeat(np.arange(len(episodes)), [len(frames) for _, frames, _ in episodes])
    frame = np.array([frame for _, frames, _ in episodes for frame in frames], int)
    value = np.array([value for _, _, values in episodes for value in values], float)
    return starts, interpolate_anchors(starts, episode, frame, value)


@given(labelled_episodes())
def test_interpolation_is_numpy_s_episode_by_episode(episodes):
    starts, found = lay_out(episodes)
    for (length, frames, values), begin in zip(episodes, starts, strict=False):
        own = found[begin : begin + length]
        if frames:
            np.testing.assert_allclose(own, np.interp(np.arange(length), frames, values), atol=1e-12)
            assert own[frames].tolist() == values
        else:
            assert np.isnan(own).all()


@given(labelled_episodes(), st.randoms(use_true_random=False))
def test_the_order_of_episodes_changes_no_bit(episodes, random):
    order = list(range(len(episodes)))
    random.shuffle(order)
    starts, found = lay_out(episodes)
    moved_starts, moved = lay_out([episodes[number] for number in order])
    for place, number in enumerate(order):
        np.testing.assert_array_equal(
            moved[moved_starts[place] : moved_starts[place + 1]], found[starts[number] : starts[number + 1]]
        )


@given(labelled_episodes())
def test_rising_anchors_give_rising_progress_to_the_last_bit(episodes):
    starts, found = lay_out([(length, frames, sorted(values)) for length, frames, values in episodes])
    for begin, end in pairwise(starts):
        rise = np.diff(found[begin:end])
        assert not (rise < 0).any()


def reward(name, starts, **known):
    frames = starts[-1]
    arrays = {key: np.full(frames, NAN) for key in ("progress", "success_prob", "tri", "human")}
    threshold = known.pop("success_threshold", 0.5)
    arrays |= {key: np.array(value, float) for key, value in known.items()}
    return derive_reward(Reward(name), np.array(starts), success_threshold=threshold, **arrays)


def test_difference_is_progress_gained_and_nothing_crosses_an_episode():
    found = reward("difference", [0, 3, 5, 6], progress=[0.0, 0.25, 1.0, 0.5, 0.25, 0.75])
    assert found.tolist() == [0.25, 0.75, 0.0, -0.25, 0.0, 0.0]


def test_difference_is_unknown_where_progress_is():
    found = reward("difference", [0, 3, 5], progress=[0.0, NAN, 1.0, NAN, NAN])
    np.testing.assert_array_equal(found, [NAN, NAN, 0.0, NAN, NAN])


def test_sparse_success_pays_once_at_the_end_of_a_success():
    prob = [0.9, 0.9, 0.5, 0.9, 0.49, 0.9, NAN]
    np.testing.assert_array_equal(reward("sparse_success", [0, 3, 5, 7], success_prob=prob), [0, 0, 1, 0, 0, NAN, NAN])
    assert reward("sparse_success", [0, 3], success_prob=prob[:3], success_threshold=0.6).tolist() == [0, 0, 0]


def test_level_tri_and_human_are_what_was_said():
    np.testing.assert_array_equal(reward("level", [0, 2], progress=[0.5, NAN]), [0.5, NAN])
    np.testing.assert_array_equal(reward("tri", [0, 3], tri=[-1, 0, NAN]), [-1, 0, NAN])
    np.testing.assert_array_equal(reward("human", [0, 2], human=[1, NAN], progress=[0.1, 0.2]), [1, NAN])


def test_every_reward_of_the_configuration_is_known_here():
    assert set(get_args(Config.model_fields["reward"].annotation)) == {str(one) for one in Reward}


def test_arrays_of_another_length_are_refused():
    with pytest.raises(UsageError, match="tri has shape"):
        reward("tri", [0, 2], tri=[1, 1, 1])


@given(labelled_episodes())
def test_difference_telescopes(episodes):
    starts, progress = lay_out(episodes)
    found = reward("difference", starts.tolist(), progress=progress)
    for begin, end in pairwise(starts):
        gained = progress[end - 1] - progress[begin]
        np.testing.assert_allclose(found[begin:end].sum(), gained, atol=1e-12)
