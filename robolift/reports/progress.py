"""How well predicted progress agrees with annotated progress, frame by frame and along episodes.

Progress is a fraction of the whole task, so errors are in units of the task and squared errors in its square. Every
function takes the frames of some episodes one after the other, (N,), and ``starts``, the (E + 1,) offsets of the
episodes in them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robolift.reports.intervals import Interval
from robolift.reports.ranking import spearman

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

PAIR_BASELINE = 1 / 6
"""Squared error of always saying "no difference" about two frames whose progress is uniform: E (p - q)^2."""
FRAME_BASELINE = 1 / 12
"""Squared error of always saying one half when progress is uniform: its variance."""
RESAMPLES = 1000
EDGE_SLACK = 1e-9
FLOAT32_SLACK = 2.0**-24
"""Half a unit in the last place below 1: what labels allow a progress that was stored as float32."""


@dataclass(frozen=True, kw_only=True)
class Spread:
    """One number an episode, over the episodes that have it."""

    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One task stage: its frames, counted by the stage that their predicted progress falls in."""

    number: int
    predicted: tuple[int, ...]

    @property
    def frames(self) -> int:
        """How many frames are truly in it."""
        return sum(self.predicted)

    @property
    def correct(self) -> float:
        """Share of them whose predicted progress falls in it too."""
        return self.predicted[self.number] / self.frames


def episodes(starts: Integers) -> Iterator[slice]:
    """Yield the rows of each episode."""
    for first, last in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        yield slice(first, last)


def pair_errors(difference: Floats, starts: Integers) -> Floats:
    """Return for each episode the mean square over its ordered pairs of frames i != j of d_i - d_j, (E,).

    That is twice the unbiased variance of ``difference`` within the episode; NaN for an episode of one frame. With
    d = predicted - annotated it is the error of a two-frame estimator (kai0's target spg_t - spg_j, j uniform in the
    episode) whose answer is the difference of two values; with d = annotated, of one that always answers 0.
    """
    found = [2 * difference[rows].var(ddof=1) if rows.stop - rows.start > 1 else np.nan for rows in episodes(starts)]
    return np.asarray(found, dtype=np.float64)


def frame_errors(difference: Floats, starts: Integers) -> Floats:
    """Return for each episode the mean square of ``difference`` over its frames, (E,)."""
    return np.asarray([np.square(difference[rows]).mean() for rows in episodes(starts)], dtype=np.float64)


def pooled(errors: Floats, starts: Integers) -> float | None:
    """Return the mean of an error per episode, each episode counted by its frames; None if none has one."""
    known = np.isfinite(errors)
    return float(np.average(errors[known], weights=np.diff(starts)[known])) if known.any() else None


def skill(errors: Floats, baseline: Floats, starts: Integers) -> Interval | None:
    """Return the share of the baseline's error that a prediction removes: 1 - error / baseline.

    1 is perfect, 0 no better than the baseline. The 95 % interval is a percentile bootstrap over whole episodes
    (Efron 1979), since frames of one episode are anything but independent; its random numbers are always the same.

    Args:
        errors: (E,) error of the prediction in each episode.
        baseline: (E,) error of the baseline in each.
        starts: (E + 1,) offsets.

    Returns:
        None with fewer than two episodes, or when the baseline is never wrong.
    """
    known = np.isfinite(errors) & np.isfinite(baseline)
    weight = np.diff(starts)[known]
    ours, theirs = errors[known] * weight, baseline[known] * weight
    if len(ours) < 2 or theirs.sum() <= 0:
        return None
    rng = np.random.default_rng(0)
    found = []
    for _ in range(RESAMPLES):
        drawn = rng.integers(0, len(ours), len(ours))
        total = theirs[drawn].sum()
        if total > 0:
            found.append(1 - ours[drawn].sum() / total)
    low, high = np.quantile(found, [0.025, 0.975])
    return Interval(estimate=float(1 - ours.sum() / theirs.sum()), low=float(low), high=float(high))


def rank_agreement(predicted: Floats, annotated: Floats, starts: Integers) -> Floats:
    """Return Spearman's rank correlation of predicted and annotated progress in each episode, (E,).

    NaN where one of them is constant.
    """
    found = [spearman(predicted[rows], annotated[rows]) for rows in episodes(starts)]
    return np.asarray([np.nan if one is None else one for one in found])


def value_order(progress: Floats, starts: Integers) -> Floats:
    """Return the value-order correlation of each episode, (E,): Spearman's correlation of progress with time.

    GVL's VOC (Ma et al. 2024, arXiv 2411.04549): 1 when progress only ever rises, 0 without order, -1 when it only
    falls. An estimator can be no better than the annotation's own, which is below 1 where an episode goes back.
    """
    found = [spearman(progress[rows], np.arange(rows.stop - rows.start, dtype=np.float64)) for rows in episodes(starts)]
    return np.asarray([np.nan if one is None else one for one in found])


def roughness(progress: Floats, starts: Integers) -> Floats:
    """Return the mean absolute second difference |p_(t+1) - 2 p_t + p_(t-1)| of each episode, (E,), task per frame^2.

    The roughness that l1 trend filtering penalizes (Kim et al. 2009, SIAM Review 51, 339-360): 0 for steady progress,
    however fast. NaN for an episode of fewer than three frames.
    """
    found = [
        np.abs(np.diff(progress[rows], 2)).mean() if rows.stop - rows.start > 2 else np.nan for rows in episodes(starts)
    ]
    return np.asarray(found, dtype=np.float64)


def spread(per_episode: Floats) -> Spread | None:
    """Return mean and middle 80 % over the episodes that have the number; None if none has."""
    known = per_episode[np.isfinite(per_episode)]
    if not len(known):
        return None
    low, high = np.quantile(known, [0.1, 0.9])
    return Spread(mean=float(known.mean()), low=float(low), high=float(high), n=len(known))


def stages(progress: Floats, num_stages: int) -> Integers:
    """Return the task stage of each frame: min(floor(S p), S - 1), never below 0, as labels are cut by stage."""
    slack = EDGE_SLACK + num_stages * FLOAT32_SLACK
    return np.clip(np.floor(progress * num_stages + slack), 0, num_stages - 1).astype(np.int64)


def stage_accuracy(predicted: Floats, annotated: Floats, num_stages: int) -> list[Stage]:
    """Return each stage that has frames, with the stages that their predicted progress falls in."""
    ours, true = stages(predicted, num_stages), stages(annotated, num_stages)
    found = ((number, np.bincount(ours[true == number], minlength=num_stages)) for number in range(num_stages))
    return [Stage(number=number, predicted=tuple(counts.tolist())) for number, counts in found if counts.any()]
