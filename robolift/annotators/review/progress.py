"""How far the work is, how well people agree, and how often they are right where the answer is known."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from robolift.annotators.agreement import Coincidences
from robolift.annotators.review.assignment import UNTOUCHED, Standing
from robolift.annotators.review.desk import Desk
from robolift.annotators.review.events import Event
from robolift.annotators.review.fold import UNKNOWABLE, State
from robolift.annotators.review.job import Gold
from robolift.annotators.review.leases import Leases

IDLE_FACTOR = 20
"""Agreement over much work takes seconds: it is not worked out again before this many times as long have passed."""
MIN_GOLD = 10
"""On the page an accuracy over fewer items would tell which of them are gold, and the right answers."""
STAGE_TOLERANCE = 0.05
"""A boundary counts as right within this share of the episode's frames."""
OUTCOMES = {"failure": 0.0, "success": 1.0}
PREFERENCES = {"A": 0.0, "tie": 1.0, "B": 2.0}


def gold_score(state: State, gold: Gold) -> float:
    """Return how right one person is about one gold item, in [0, 1]: the mean over what its answer speaks of.

    The outcome and the preference are right or wrong; ``tri`` is right in a share of the frames that the answer names;
    a boundary is right within 5 % of the episode's frames of the answer's, if both count the same stages.
    """
    scores = []
    if gold.outcome is not None:
        scores.append(float(state.outcome is not None and state.outcome[0] == gold.outcome))
    if gold.prefer is not None:
        scores.append(float(state.preference == gold.prefer))
    if gold.tri:
        right = [state.tri[start:stop] == value for start, stop, value in gold.tri]
        scores.append(float(np.concatenate(right).mean()))
    if gold.stages is not None:
        scores.append(_boundaries_score(state.boundaries, gold.stages, length=len(state.tri)))
    return float(np.mean(scores)) if scores else 1.0


def _boundaries_score(found: Sequence[int], right: Sequence[int], *, length: int) -> float:
    if len(found) != len(right):
        return 0.0
    if not right:
        return 1.0
    off = np.abs(np.asarray(found) - np.asarray(sorted(right)))
    return float((off <= max(1, round(STAGE_TOLERANCE * length))).mean())


def gold_accuracy(
    states: Mapping[tuple[str, str], State], gold: Mapping[str, Gold], *, at_least: int = 1
) -> dict[str, float]:
    """Return each person's mean :func:`gold_score` over the gold items they completed, by name.

    Args:
        states: What people say, by (annotator, item).
        gold: Right answers by item.
        at_least: Items that a person must have completed to be measured.
    """
    scores: dict[str, list[float]] = {}
    for (annotator, item), state in sorted(states.items(), key=lambda entry: entry[0]):
        if item in gold and state.complete:
            scores.setdefault(annotator, []).append(gold_score(state, gold[item]))
    return {annotator: float(np.mean(found)) for annotator, found in scores.items() if len(found) >= at_least}


def agreement(states: Mapping[tuple[str, str], State]) -> dict[str, float | None]:
    """Return Krippendorff's alpha over the items that several people completed.

    ``tri`` is ordinal over frames, where nobody's "unknown" counts; ``outcome`` and ``preference`` are nominal over
    items.

    Args:
        states: What people say, by (annotator, item).
    """
    by_item: dict[str, list[State]] = {}
    for (_, item), state in sorted(states.items(), key=lambda entry: entry[0]):
        if state.complete:
            by_item.setdefault(item, []).append(state)
    tri, outcome, preference = Coincidences(), Coincidences(), Coincidences()
    for said in by_item.values():
        tri.add([np.where(state.tri < UNKNOWABLE, state.tri, np.nan) for state in said])
        outcome.add([[OUTCOMES[state.outcome[0]] if state.outcome else np.nan] for state in said])
        preference.add([[PREFERENCES[state.preference] if state.preference else np.nan] for state in said])
    return {
        "tri": tri.alpha(level="ordinal"),
        "outcome": outcome.alpha(level="nominal"),
        "preference": preference.alpha(level="nominal"),
    }


def seconds(events: Sequence[Event]) -> float | None:
    """Return how long a person took for an item, first event to first completion; None if they never completed it."""
    ends = [event.at_ms for event in events if event.op == "complete"]
    return (min(ends) - min(event.at_ms for event in events)) / 1000 if ends else None


class Progress:
    """The numbers of the overview, worked out anew when something was done."""

    def __init__(self, desk: Desk) -> None:
        """Report on the work at ``desk``."""
        self._desk = desk
        self._known: dict[str, Any] = {}
        self._version = -1
        self._known_until = float("-inf")

    def report(self, annotator: str) -> dict[str, Any]:
        """Return the overview as a person gets it."""
        desk = self._desk
        desk.work.refresh()
        standings = desk.work.standings()
        counts = {
            f"{mode}s": _count(items, standings, annotator, needs=desk.needs, leases=desk.leases)
            for mode, items in desk.items.items()
        }
        began = time.monotonic()
        if self._version != desk.work.version and began >= self._known_until:
            self._version, self._known = desk.work.version, self._people(standings)
            self._known_until = time.monotonic() + IDLE_FACTOR * (time.monotonic() - began)
        return {**counts, **self._known}

    def _people(self, standings: Mapping[str, Standing]) -> dict[str, Any]:
        desk = self._desk
        # What people say after they looked at each other's answers tells nothing of how well they agree.
        states = {(name, item): desk.work.first_pass(name, item) for item, s in standings.items() for name in s.done}
        accuracy = gold_accuracy(states, desk.gold, at_least=MIN_GOLD)
        people = []
        for name in desk.work.annotators():
            items = [item for person, item in states if person == name]
            taken = [found for item in items if (found := seconds(desk.work.events(name, item))) is not None]
            people.append(
                {
                    "name": name,
                    "done": len(items),
                    "gold_accuracy": accuracy.get(name),
                    "median_s": float(np.median(taken)) if taken else None,
                }
            )
        return {"annotators": people, "agreement": agreement(states)}

    def items(self, mode: str, annotator: str, facts: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return the job list: every item, how far it is, and ``facts`` about it."""
        desk = self._desk
        desk.work.refresh()
        standings = desk.work.standings()
        listed = []
        for item in desk.items[mode]:
            standing, needed = standings.get(item, UNTOUCHED), desk.needs[item]
            # Whoever knew that nobody looks at an item again might look less closely.
            told = annotator in standing.done or len(standing.done) >= needed
            entry = {
                "item": item,
                **facts.get(item, {}),
                "state": _state_of(item, standing, annotator, needed=needed, leases=desk.leases),
                "annotators": len(standing.done) if told else None,
                "needed": needed if told else None,
            }
            if len(standing.done) > 1 and (agreed := desk.agreed(item)) is not None:
                entry["disagreement"] = agreed.disagreement
            listed.append(entry)
        return listed

    def disagreements(self) -> list[dict[str, Any]]:
        """Return the items that several people completed, those on which they differ most first."""
        desk = self._desk
        desk.work.refresh()
        found = []
        for item, standing in desk.work.standings().items():
            agreed = desk.agreed(item) if len(standing.done) > 1 else None
            if agreed is not None and agreed.disagreement is not None:
                found.append((-agreed.disagreement, item, sorted(standing.done)))
        return [{"item": item, "disagreement": -less, "annotators": names} for less, item, names in sorted(found)]


def _state_of(item: str, standing: Standing, annotator: str, *, needed: int, leases: Leases) -> str:
    if annotator in standing.done | standing.started:
        return "mine"
    if annotator in standing.skipped:
        return "skipped"
    if len(standing.done) >= needed:
        return "done"
    if leases.is_running(leases.seen(item)):
        return "leased"
    return "skipped" if standing.skipped else "open"


def _count(
    items: Iterable[str],
    standings: Mapping[str, Standing],
    annotator: str,
    *,
    needs: Mapping[str, int],
    leases: Leases,
) -> dict[str, int]:
    counts = {"total": 0, "done": 0, "mine": 0, "skipped": 0, "leased": 0}
    for item in items:
        standing = standings.get(item, UNTOUCHED)
        counts["total"] += 1
        done = len(standing.done) >= needs[item]
        counts["done"] += done
        counts["mine"] += annotator in standing.done
        counts["skipped"] += bool(standing.skipped)
        counts["leased"] += not done and leases.is_running(leases.seen(item))
    return counts
