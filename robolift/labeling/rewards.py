"""What a frame is paid, derived from what is known about it. A reward is never the same as progress."""

from __future__ import annotations

import enum

import numpy as np

from robolift.labeling.returns import Float64Array, FloatArray, IntArray, check_frames


class Reward(enum.StrEnum):
    """What the reward is made from."""

    DIFFERENCE = "difference"  # progress gained by the next frame
    SPARSE_SUCCESS = "sparse_success"  # 1 where a success ends
    LEVEL = "level"  # progress itself: stalling near the goal keeps earning
    TRI = "tri"  # people's -1, 0, +1
    HUMAN = "human"  # as people marked it


def derive_reward(
    reward: Reward,
    starts: IntArray,
    *,
    progress: FloatArray,
    success_prob: FloatArray,
    tri: FloatArray,
    human: FloatArray,
    success_threshold: float = 0.5,
) -> Float64Array:
    """Return the reward of each frame, (F,) float64, NaN where what it is made from is not known.

        difference       r_t = p_{t+1} - p_t,  r_{T-1} = 0
        sparse_success   r_{T-1} = [success_prob_{T-1} >= success_threshold],  r_t = 0 before
        level            r_t = p_t
        tri, human       what people said

    ``difference`` telescopes: from t to the end it adds up to p_{T-1} - p_t, so an episode earns what it got done and
    nothing for the way (progress as potential, Ng et al. 1999). Nothing crosses the end of an episode.

    Args:
        reward: Which of them.
        starts: Offsets of the episodes, (E + 1,).
        progress: p, (F,), in [0, 1] or NaN.
        success_prob: Probability that the episode succeeded, as known at each frame, (F,) or NaN.
        tri: -1, 0 or 1, (F,) or NaN.
        human: Reward that people marked, (F,) or NaN.
        success_threshold: Probability from which the last frame counts as a success.

    Raises:
        UsageError: If shapes disagree.
    """
    check_frames(starts, progress=progress, success_prob=success_prob, tri=tri, human=human)
    if reward == Reward.DIFFERENCE:
        return _difference(progress.astype(np.float64), starts)
    if reward == Reward.SPARSE_SUCCESS:
        return _sparse_success(success_prob, starts, success_threshold)
    given = {Reward.LEVEL: progress, Reward.TRI: tri, Reward.HUMAN: human}[reward]
    return given.astype(np.float64)


def _difference(progress: Float64Array, starts: IntArray) -> Float64Array:
    following = np.append(progress[1:], np.nan)
    last = starts[1:] - 1
    following[last] = progress[last]
    return following - progress


def _sparse_success(success_prob: FloatArray, starts: IntArray, threshold: float) -> Float64Array:
    last = starts[1:] - 1
    found = np.repeat(np.where(np.isnan(success_prob[last]), np.nan, 0.0), np.diff(starts))
    found[last] += success_prob[last] >= threshold
    return found
