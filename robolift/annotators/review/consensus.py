"""What several people who labelled the same item say together, and how far they agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from robolift.annotators.review.fold import EMPTY, UNKNOWABLE, State


@dataclass(frozen=True, kw_only=True, eq=False)
class Consensus:
    """The common word on one item.

    Attributes:
        tri: (T,) int8 of -1, 0, 1, UNKNOWABLE (all who spoke can't tell, or no value is common) or EMPTY.
        frames: (T,) int8 of 0, 1 or EMPTY.
        outcome: ``success``, ``failure``, or None where nobody said or they are even.
        boundaries: First frames of the task stages after the first; None where people count different stages.
        preference: ``A``, ``B`` or ``tie``; None where nobody said or no answer has the most voices.
        marked: (T,) bool, frames that somebody spoke of by themselves.
        confidence: (T,) float32 share of the annotators who agree with what is said of the frame, NaN where nothing is.
        disagreement: 1 - mean share of agreement over all that was said; None with fewer than two annotators.
    """

    tri: np.ndarray
    frames: np.ndarray
    outcome: str | None
    boundaries: tuple[int, ...] | None
    preference: str | None
    marked: np.ndarray
    confidence: np.ndarray
    disagreement: float | None


def consensus(states: Mapping[str, State], *, ask: Sequence[str]) -> Consensus:
    """Return what people say together about one item.

    ``tri`` is the median over those who could tell; where the two middle values differ it is the one nearer to 0, and
    between -1 and 1 it is not known: nobody said 0. ``frames`` is 1 where the mean is at least 0.5. The outcome and the
    preference are what most say. Each boundary is the median over people, rounded down between two frames, if all count
    the same stages.

    The confidence of a frame is the smallest share of annotators who agree with one of the values that the frame gets:
    its ``tri``, its reward, and its stage (which progress follows from). The outcome speaks of the whole episode and
    counts only where nothing else is asked. An annotator who said something else, or that it can't be told, does not
    agree. The disagreement is over all that was asked, the outcome too, and a value that is not common is agreed on by
    nobody.

    Args:
        states: Of those who completed the item, by name; at least one.
        ask: What was asked of an episode.
    """
    people = [states[name] for name in sorted(states)]
    tri = _median(np.stack([state.tri for state in people]))
    frames = _majority_of_frames(np.stack([state.frames for state in people]))
    outcome = _majority([state.outcome[0] for state in people if state.outcome])
    preference = _majority([state.preference for state in people if state.preference])
    boundaries = _boundaries([state.boundaries for state in people])
    shares: list[np.ndarray] = []
    sure: list[np.ndarray] = []
    if "segments" in ask:
        shares.append(_agreement(np.stack([state.tri for state in people]), tri))
        sure.append(np.where(tri < UNKNOWABLE, shares[-1], np.nan))
    if "frames" in ask:
        shares.append(_agreement(np.stack([state.frames for state in people]), frames))
        sure.append(shares[-1])
    if "stages" in ask:
        shares.append(_agreement_on_stages(people, boundaries))
        sure.append(np.full(len(tri), np.nan) if boundaries is None else shares[-1])
    if "outcome" in ask:
        said = [state.outcome[0] if state.outcome else None for state in people]
        shares.append(np.full(len(tri), _share(said, outcome)))
        sure = sure or [shares[-1]]
    agreement = np.stack(shares) if shares else np.empty((0, len(tri)))
    overall = agreement if len(tri) else np.array([_share([state.preference for state in people], preference)])
    return Consensus(
        tri=tri,
        frames=frames,
        outcome=outcome,
        boundaries=boundaries,
        preference=preference,
        marked=_marked(people, ask),
        confidence=_least_known(sure, len(tri)).astype(np.float32),
        disagreement=_disagreement(overall) if len(people) > 1 else None,
    )


def stage_of_frames(boundaries: Sequence[int], length: int) -> np.ndarray:
    """Return the task stage of each frame, (T,) int64 from 0."""
    return np.searchsorted(np.asarray(boundaries, np.int64), np.arange(length), side="right")


def stage_progress(boundaries: Sequence[int], length: int, num_task_stages: int, *, finished: bool) -> np.ndarray:
    """Return progress by task stages, as kai0 defines ``stage_progress_gt``.

    Frame i of the n frames of stage k of S has k/S + (1/S) i/n.

    Args:
        boundaries: First frames of the stages after the first.
        length: T, frames of the episode.
        num_task_stages: S.
        finished: Whether the last stage that was entered was also finished. If not, nobody knows how far in it a frame
            is, and its progress is NaN.

    Returns:
        (T,) float64 in [0, 1), NaN where not known.
    """
    edges = np.array([0, *boundaries, length])
    stages = stage_of_frames(boundaries, length)
    position = (np.arange(length) - edges[stages]) / np.diff(edges)[stages]
    progress = (stages + position) / num_task_stages
    return progress if finished else np.where(stages == len(boundaries), np.nan, progress)


def _median(values: np.ndarray) -> np.ndarray:
    """Return the median of -1, 0, 1 over people, (people, T) -> (T,); see :func:`consensus` for ties."""
    known = values < UNKNOWABLE
    count = known.sum(axis=0)
    ordered = np.sort(np.where(known, values, EMPTY), axis=0)
    columns = np.arange(values.shape[1])
    low = ordered[np.maximum(count - 1, 0) // 2, columns]
    high = ordered[np.minimum(count // 2, len(values) - 1), columns]
    middle = np.where(low == high, low, np.where(low == -high, UNKNOWABLE, 0))
    unsaid = np.where((values == UNKNOWABLE).any(axis=0), UNKNOWABLE, EMPTY)
    return np.where(count > 0, middle, unsaid).astype(np.int8)


def _majority_of_frames(values: np.ndarray) -> np.ndarray:
    known = values != EMPTY
    ones = (values == 1).sum(axis=0)
    return np.where(known.any(axis=0), 2 * ones >= known.sum(axis=0), EMPTY).astype(np.int8)


def _majority(answers: Sequence[str]) -> str | None:
    ranked = Counter(answers).most_common(2)
    if not ranked or (len(ranked) > 1 and ranked[0][1] == ranked[1][1]):
        return None
    return ranked[0][0]


def _boundaries(found: Sequence[tuple[int, ...]]) -> tuple[int, ...] | None:
    if len({len(boundaries) for boundaries in found}) > 1:
        return None
    medians = np.floor(np.median(np.array(found).reshape(len(found), -1), axis=0)).astype(int)
    return tuple(medians.tolist())


def _agreement(values: np.ndarray, common: np.ndarray) -> np.ndarray:
    """Return the share of those who spoke of each frame and agree, (T,); NaN where nobody spoke."""
    spoke = values != EMPTY
    count = spoke.sum(axis=0)
    agreeing = (spoke & (values == common)).sum(axis=0)
    return np.where(count > 0, agreeing / np.maximum(count, 1), np.nan)


def _agreement_on_stages(people: Sequence[State], boundaries: tuple[int, ...] | None) -> np.ndarray:
    length = len(people[0].tri)
    if boundaries is None:
        return np.zeros(length)
    common = stage_of_frames(boundaries, length)
    same = [stage_of_frames(state.boundaries, length) == common for state in people]
    return np.asarray(np.mean(same, axis=0))


def _share(said: Sequence[str | None], common: str | None) -> float:
    answers = [answer for answer in said if answer is not None]
    return answers.count(common) / len(answers) if answers and common else (0.0 if answers else np.nan)


def _least_known(shares: Sequence[np.ndarray], length: int) -> np.ndarray:
    """Return the smallest share of each frame, (T,); NaN where none is known."""
    return np.asarray(np.fmin.reduce([np.full(length, np.nan), *shares]))


def _disagreement(shares: np.ndarray) -> float | None:
    known = shares[~np.isnan(shares)]
    return round(1 - float(known.mean()), 6) if len(known) else None


def _marked(people: Sequence[State], ask: Sequence[str]) -> np.ndarray:
    """Return the frames that somebody spoke of: painted, rewarded, named as outcome, or as first of a stage."""
    marked = np.zeros(len(people[0].tri), bool)
    for state in people:
        if "segments" in ask:
            marked |= state.tri != EMPTY
        if "frames" in ask:
            marked |= state.frames != EMPTY
        if "outcome" in ask and state.outcome is not None:
            marked[state.outcome[1]] = True
        if "stages" in ask:
            marked[list(state.boundaries)] = True
    return marked
