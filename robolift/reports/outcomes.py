"""How well a score of episodes tells success from failure: a ROC curve and a confusion matrix, as plain numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robolift import schema
from robolift.reports.frames import FrameFacts

CATEGORIES = ("success", "failure")
MAX_POINTS = 200


@dataclass(frozen=True, kw_only=True)
class OutcomeCurve:
    """A score as a classifier of episodes; a point (n,) for each of the thresholds, strictest first.

    Attributes:
        false_positive_rate: Share of failures whose score reaches the threshold.
        true_positive_rate: Share of successes whose score does.
        threshold: Scores; the first lies above all of them.
        cut: The threshold of the confusion matrix, where the two rates are farthest apart (Youden 1950).
        confusion: Episodes by what they were (row) and what the cut says (column), in the order of CATEGORIES.
        held_out: Whether only episodes that the model was not trained on are counted.
    """

    false_positive_rate: list[float]
    true_positive_rate: list[float]
    threshold: list[float]
    cut: float
    confusion: list[list[int]]
    held_out: bool


def outcome_curve(frames: FrameFacts, held_out: NDArray[np.int64] | None) -> OutcomeCurve | None:
    """Measure held-out episodes, or all where there are none or none known.

    Returns:
        None when they are not of both outcomes.
    """
    unseen = held_out is not None and len(held_out) > 0
    episodes = held_out if held_out is not None and unseen else np.arange(frames.num_episodes)
    outcome = frames.outcome[frames.starts[episodes]]
    score = np.asarray([frames.value[frames.rows(int(e))].mean() for e in episodes])
    success, failure = (score[outcome == schema.OUTCOMES.index(name)] for name in CATEGORIES)
    return curve(success, failure, held_out=unseen)


def curve(success: NDArray[np.float64], failure: NDArray[np.float64], *, held_out: bool) -> OutcomeCurve | None:
    """Measure how well a score tells successes from failures.

    Args:
        success: Score of each success.
        failure: Score of each failure.
        held_out: Whether only episodes are counted that whoever gave the scores had not seen.

    Returns:
        None when there are not both.
    """
    success, failure = np.sort(success), np.sort(failure)
    if not len(success) or not len(failure):
        return None
    known = np.unique(np.concatenate([success, failure]))[::-1]
    threshold = np.concatenate([[np.nextafter(known[0], np.inf)], known])
    # At least the threshold: what lies below it is left out.
    caught, mistaken = (len(scores) - np.searchsorted(scores, threshold) for scores in (success, failure))
    # In whole numbers, so that equal differences are equal: of those the strictest cut is taken.
    best = int(np.argmax(caught * len(failure) - mistaken * len(success)))
    shown = np.unique(np.linspace(0, len(threshold) - 1, MAX_POINTS).round().astype(int))
    return OutcomeCurve(
        false_positive_rate=(mistaken[shown] / len(failure)).tolist(),
        true_positive_rate=(caught[shown] / len(success)).tolist(),
        threshold=threshold[shown].tolist(),
        cut=float(threshold[best]),
        confusion=[
            [int(caught[best]), int(len(success) - caught[best])],
            [int(mistaken[best]), int(len(failure) - mistaken[best])],
        ],
        held_out=held_out,
    )
