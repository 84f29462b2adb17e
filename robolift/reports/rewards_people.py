"""Where the model and people contradict each other: by what people marked, and in which episodes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from robolift.reports.rewards import FAILURE, SUCCESS, UNKNOWN, Floats, Integers, RewardFacts, judged_outcome
from robolift.reports.rewards_measures import end_scores

STALLED_PACE = 0.1
"""As ``label_quality`` counts: progress slower than this share of a clock's pace stands still."""
TRI = (-1, 0, 1)
TRI_NAMES = ("regressing", "stalled", "progressing")
SLOPE_NAMES = ("falls", "stands still", "rises")
MAX_LISTED = 8


@dataclass(frozen=True, kw_only=True)
class Contradicted:
    """One episode that people marked: how much of it the model's progress contradicts."""

    episode: int
    wrong: int
    frames: int

    @property
    def share(self) -> float:
        """Contradicted frames of those compared."""
        return self.wrong / self.frames


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The model against people.

    Attributes:
        confusion: Frames by what people marked (row, as TRI) and what the model's progress does there (column).
        episodes: The most contradicted episodes first; those without a contradiction are left out.
        num_compared: Episodes of which any frame was compared.
        outcomes: Episodes by how people say they ended (row: success, failure) and by whether the model's success
            probability is at least one half (column); None where one of them says nothing of it.
    """

    confusion: Integers
    episodes: tuple[Contradicted, ...]
    num_compared: int
    outcomes: Integers | None

    @property
    def frames(self) -> int:
        """Frames compared."""
        return int(self.confusion.sum())

    @property
    def share(self) -> float | None:
        """Share of the compared frames that are contradicted, None without any."""
        agreed = int(np.trace(self.confusion))
        return (self.frames - agreed) / self.frames if self.frames else None


def direction(progress: Floats, tri: Floats, starts: Integers) -> Floats:
    """Return what progress does over each segment that people marked, (N,): -1 falls, 0 stands still, 1 rises.

    A segment is a run of frames of one mark. What counts is the change from its first frame to the one after its last,
    against STALLED_PACE of what a clock would gain in that time. NaN where nothing is marked, progress is not known at
    an end of the segment, or the segment is only the last frame of its episode.
    """
    found = np.full(len(tri), np.nan)
    for first, last in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        marks = tri[first:last]
        edges = np.flatnonzero(marks[1:] != marks[:-1]) + 1
        begins = np.concatenate([[0], edges])
        stops = np.append(edges, len(marks))
        until = np.minimum(stops, len(marks) - 1)
        change = progress[first + until] - progress[first + begins]
        still = np.abs(change) <= STALLED_PACE * (until - begins) / len(marks)
        sign = np.where(still, 0.0, np.sign(change))
        sign[(until == begins) | np.isnan(marks[begins])] = np.nan
        found[first:last] = np.repeat(sign, stops - begins)
    return found


def compare(facts: RewardFacts) -> Comparison | None:
    """Compare the model with people; None when one of them said nothing."""
    if facts.model is None or facts.people is None:
        return None
    marked = facts.people.tri
    seen = direction(facts.model.progress, marked, facts.starts)
    both = np.isfinite(seen) & np.isfinite(marked)
    pairs = 3 * (marked[both] + 1).astype(np.int64) + (seen[both] + 1).astype(np.int64)
    wrong = np.add.reduceat((both & (seen != marked)).astype(np.int64), facts.starts[:-1])
    compared = np.add.reduceat(both.astype(np.int64), facts.starts[:-1])
    listed = [
        Contradicted(episode=int(e), wrong=int(wrong[e]), frames=int(compared[e])) for e in np.flatnonzero(wrong > 0)
    ]
    return Comparison(
        confusion=np.bincount(pairs, minlength=9).reshape(3, 3),
        episodes=tuple(sorted(listed, key=lambda one: (-one.share, one.episode))),
        num_compared=int((compared > 0).sum()),
        outcomes=_outcomes(facts),
    )


def _outcomes(facts: RewardFacts) -> Integers | None:
    assert facts.model is not None
    assert facts.people is not None
    name, score = end_scores(facts.model, facts.starts)
    people = judged_outcome(facts.people, facts.starts)
    both = np.isfinite(score) & (people != UNKNOWN)
    if name == "progress" or not both.any():
        return None
    found = [[int((both & (people == code) & ((score >= 0.5) == said)).sum()) for said in (True, False)]
             for code in (SUCCESS, FAILURE)]  # fmt: skip
    return np.asarray(found, dtype=np.int64)
