"""What the page on reward labels measures itself: who labelled what, how progress runs, who contradicts whom."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from robolift import schema
from robolift.reports.frames import Codes
from robolift.reports.labels import Bar, stacked
from robolift.reports.outcomes import OutcomeCurve, curve
from robolift.reports.ranking import auc
from robolift.reports.rewards import FAILURE, SUCCESS, Floats, Integers, RewardColumns, RewardFacts, at_ends

SOURCE_NAMES = {"vlm": "the model", "human": "people", "heuristic": "recorded outcome", "none": "nobody"}
SOURCE_COLOURS = {"the model": "demo", "people": "human", "recorded outcome": "paused", "nobody": "none"}
GRID = 51


@dataclass(frozen=True, kw_only=True)
class Band:
    """Progress over the share of time that has passed, of the episodes of one outcome; (GRID,) each.

    Attributes:
        low: First decile of the episodes at each moment.
        median: Their median.
        high: Their last decile.
        n: Episodes counted: those whose progress is known in every frame.
    """

    outcome: str
    low: Floats
    median: Floats
    high: Floats
    n: int


@dataclass(frozen=True, kw_only=True)
class Ends:
    """What was said of the last frame of each episode that has an outcome.

    Attributes:
        name: ``success probability`` where there is one, else ``progress``.
        scores: By outcome, (n,) each.
        auroc: Chance that a success scores above a failure, ties half; None without both.
        curve: The ROC curve and the confusion matrix at its best cut.
    """

    name: str
    scores: dict[str, Floats]
    auroc: float | None
    curve: OutcomeCurve | None


@dataclass(frozen=True, kw_only=True)
class Sums:
    """Summed reward of the episodes of one outcome whose reward is known in every frame."""

    outcome: str
    n: int
    median: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Unrewarded:
    """Where no reward is: training on it would take an unknown for a number.

    Attributes:
        frames: How many frames have none.
        episodes: Those in which one of them lies, ascending.
    """

    frames: int
    episodes: tuple[int, ...]


def unrewarded(facts: RewardFacts) -> Unrewarded:
    """Find the frames without a reward."""
    missing = ~np.isfinite(facts.merged.reward)
    episodes = np.flatnonzero(np.logical_or.reduceat(missing, facts.starts[:-1]))
    return Unrewarded(frames=int(missing.sum()), episodes=tuple(episodes.tolist()))


def coverage(facts: RewardFacts) -> tuple[Bar, tuple[Bar, ...]]:
    """Count who labelled the frames: of all, and of each task."""
    lengths = np.diff(facts.starts)
    tasks = np.asarray(facts.dataset.episodes.column("task").to_pylist(), dtype=object)
    of_frames = np.repeat(tasks, lengths)
    by_task = tuple(_source_bar(task, facts.merged.source[of_frames == task]) for task in sorted(set(tasks)))
    return _source_bar("all frames", facts.merged.source), by_task


def _source_bar(name: str, source: Codes) -> Bar:
    counts = np.bincount(source, minlength=len(schema.REWARD_SOURCES)).tolist()
    named = {SOURCE_NAMES[key]: number for key, number in zip(schema.REWARD_SOURCES, counts, strict=True)}
    return stacked(name, named, SOURCE_COLOURS)


def bands(facts: RewardFacts) -> tuple[Band, ...]:
    """Return how progress runs in successes and in failures; an outcome without whole episodes is left out."""
    found = (_band(facts, code, schema.OUTCOMES[code]) for code in (SUCCESS, FAILURE))
    return tuple(band for band in found if band)


def _band(facts: RewardFacts, code: int, outcome: str) -> Band | None:
    grid = np.linspace(0, 1, GRID)
    curves = []
    for episode in facts.episodes_of(code).tolist():
        progress = facts.judged.progress[facts.rows(episode)]
        if np.isfinite(progress).all():
            curves.append(np.interp(grid, np.linspace(0, 1, len(progress)), progress))
    if not curves:
        return None
    low, median, high = np.quantile(curves, [0.1, 0.5, 0.9], axis=0)
    return Band(outcome=outcome, low=low, median=median, high=high, n=len(curves))


def ends(facts: RewardFacts) -> Ends | None:
    """Measure what the model says of the last frames; None when it says nothing of any episode with an outcome."""
    if facts.model is None:
        return None
    name, score = end_scores(facts.model, facts.starts)
    scores = {schema.OUTCOMES[code]: _known(score[facts.outcome == code]) for code in (SUCCESS, FAILURE)}
    success, failure = scores["success"], scores["failure"]
    if not len(success) and not len(failure):
        return None
    is_success = np.repeat([True, False], [len(success), len(failure)])
    return Ends(
        name=name,
        scores=scores,
        auroc=auc(np.concatenate([success, failure]), is_success),
        curve=curve(success, failure, held_out=False),
    )


def end_scores(columns: RewardColumns, starts: Integers) -> tuple[str, Floats]:
    """Return what says how an episode ended, and its value in each last frame (E,), NaN where it is not known."""
    if np.isfinite(columns.success_prob).any():
        return "success probability", at_ends(columns.success_prob, starts)
    return "progress", at_ends(columns.progress, starts)


def _known(values: Floats) -> Floats:
    return values[np.isfinite(values)]


def reward_sums(facts: RewardFacts) -> tuple[Sums, ...]:
    """Return the summed reward by outcome; an outcome without an episode of known reward is left out."""
    known = np.isfinite(facts.merged.reward)
    whole = np.logical_and.reduceat(known, facts.starts[:-1])
    total = np.add.reduceat(np.where(known, facts.merged.reward, 0.0), facts.starts[:-1])
    found = []
    for code, outcome in enumerate(schema.OUTCOMES):
        mine = total[whole & (facts.outcome == code)]
        if len(mine):
            low, median, high = np.quantile(mine, [0.1, 0.5, 0.9])
            found.append(Sums(outcome=outcome, n=len(mine), median=float(median), low=float(low), high=float(high)))
    return tuple(found)
