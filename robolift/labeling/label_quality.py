"""What reward labels are worth, as numbers: order, separation of outcomes, agreement with people.

NaN means not known, in what goes in and in what comes out. Every measure of order is met by a clock, which says t / T
and looks at nothing: that is why :func:`clock` stands here, and why separation is measured too.
"""

from __future__ import annotations

import numpy as np

from robolift.labeling.returns import (
    BoolArray,
    Float64Array,
    FloatArray,
    IntArray,
    check_frames,
    episode_of_frame,
    frames_to_end,
)

STALLED_PACE = 0.1
"""Progress slower than this share of the clock's pace counts as standing still."""
CALIBRATION_BINS = 10


def clock(starts: IntArray) -> Float64Array:
    """Return what a labeller says that only knows the time: t / T, counted from 1, so every episode ends at 1, (F,)."""
    lengths = np.repeat(np.diff(starts), np.diff(starts))
    return np.asarray((lengths - frames_to_end(starts)) / lengths, dtype=np.float64)


def value_order_correlation(progress: FloatArray, starts: IntArray) -> Float64Array:
    """Return for each episode Spearman's correlation of progress with time (VOC of GVL, arXiv 2411.04549), (E,).

    Ties share the mean of their ranks. Over the known frames of an episode: 0 if progress is the same in all of them,
    NaN if fewer than two are known. A clock has 1.

    Args:
        progress: (F,) or NaN.
        starts: Offsets of the episodes, (E + 1,).

    Raises:
        UsageError: If shapes disagree.
    """
    check_frames(starts, progress=progress)
    known = np.flatnonzero(~np.isnan(progress))
    owner = episode_of_frame(starts)[known]
    num = len(starts) - 1
    count = np.bincount(owner, minlength=num)
    rank = _ranks_within(owner, progress[known])
    time = _ranks_within(owner, known)
    middle = (count + 1)[owner] / 2
    covariance = np.bincount(owner, weights=(rank - middle) * (time - middle), minlength=num)
    spread = [np.bincount(owner, weights=(one - middle) ** 2, minlength=num) for one in (rank, time)]
    scale = np.sqrt(spread[0] * spread[1])
    order = np.divide(covariance, scale, out=np.zeros(num), where=scale > 0)
    return np.where(count >= 2, order, np.nan)


def _ranks_within(owner: IntArray, values: FloatArray | IntArray) -> Float64Array:
    """Return the rank of each value in its episode, from 1, ties sharing the mean of their places; ``owner`` rises."""
    order = np.lexsort((values, owner))
    ordered, owners = values[order], owner[order]
    begins = np.ones(len(order), dtype=bool)
    begins[1:] = (ordered[1:] != ordered[:-1]) | (owners[1:] != owners[:-1])
    edges = np.append(np.flatnonzero(begins), len(order))
    mean_place = np.repeat((edges[:-1] + edges[1:] + 1) / 2, np.diff(edges))
    ranks = np.empty(len(order))
    ranks[order] = mean_place - np.searchsorted(owners, owners)
    return ranks


def area_under_curve(positive: FloatArray, negative: FloatArray) -> float:
    """Return P(positive > negative) + P(equal) / 2, NaN when one class is empty (Mann and Whitney's U)."""
    num = len(positive) * len(negative)
    if not num:
        return float("nan")
    below = np.sort(negative)
    less = np.searchsorted(below, positive, side="left").sum()
    equal = np.searchsorted(below, positive, side="right").sum() - less
    return float((less + equal / 2) / num)


def mean_gap(positive: FloatArray, negative: FloatArray) -> float:
    """Return mean(positive) - mean(negative), NaN when one class is empty."""
    return float(positive.mean() - negative.mean()) if len(positive) and len(negative) else float("nan")


def constant_episodes(progress: FloatArray, starts: IntArray) -> tuple[BoolArray, BoolArray]:
    """Return which episodes have a progress that never changes, and which have two known frames or more, (E,) each.

    Raises:
        UsageError: If shapes disagree.
    """
    check_frames(starts, progress=progress)
    known = ~np.isnan(progress)
    asked = np.add.reduceat(known, starts[:-1]) >= 2
    highest = np.maximum.reduceat(np.where(known, progress, -np.inf), starts[:-1])
    lowest = np.minimum.reduceat(np.where(known, progress, np.inf), starts[:-1])
    return asked & (highest == lowest), asked


def disagreement(progress: FloatArray, tri: FloatArray, starts: IntArray) -> tuple[BoolArray, BoolArray]:
    """Return the frames where progress contradicts what people said, and those where both are known, (F,) each.

    A segment is a run of frames with one ``tri``. Progress rises over it if it gains, from its first frame to the one
    after its last, more than STALLED_PACE of what a clock would (frames / T); falls if it loses as much; else it stands
    still. The segment's frames are contradicted unless that is what ``tri`` says: 1, -1 or 0. Nothing can be said of a
    segment that is only the last frame of its episode, or where progress is not known at an end of it.

    Args:
        progress: The model's, (F,) or NaN.
        tri: People's -1, 0 or 1, (F,) or NaN.
        starts: Offsets of the episodes, (E + 1,).

    Raises:
        UsageError: If shapes disagree.
    """
    check_frames(starts, progress=progress, tri=tri)
    num, owner = len(tri), episode_of_frame(starts)
    begins = np.ones(num, dtype=bool)
    begins[1:] = (tri[1:] != tri[:-1]) | (owner[1:] != owner[:-1])
    first = np.flatnonzero(begins)
    lengths = np.diff(np.append(first, num))
    end = np.minimum(first + lengths, starts[owner[first] + 1] - 1)
    change = progress[end] - progress[first]
    still = STALLED_PACE * (end - first) / np.diff(starts)[owner[first]]
    sign = np.where(np.abs(change) > still, np.sign(change), 0.0)
    both = (end > first) & ~np.isnan(change) & ~np.isnan(tri[first])
    wrong = both & (sign != tri[first])
    return np.repeat(wrong, lengths), np.repeat(both, lengths)


def calibration_error(probability: FloatArray, success: BoolArray) -> float:
    """Return the expected calibration error: how far probabilities lie from shares, over ten bins of equal width.

        sum over bins of n_b / N * |mean probability - share of successes|

    Args:
        probability: (N,), in [0, 1].
        success: What happened, (N,).

    Returns:
        NaN without a probability.
    """
    if not len(probability):
        return float("nan")
    bins = np.minimum((probability * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    gap = np.bincount(bins, weights=probability - success, minlength=CALIBRATION_BINS)
    return float(np.abs(gap).sum() / len(probability))
