"""Folds a person's events on one item into what they say about it: a pure function of the set of events."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from robolift.annotators.review.events import UNKNOWN, Event, by_annotator_and_item

EMPTY = 3
"""In arrays of frames: nobody said anything."""
UNKNOWABLE = 2
"""In ``tri``: the person says that it can't be told."""


@dataclass(frozen=True, kw_only=True, eq=False)
class State:
    """What one person says about one item.

    Attributes:
        tri: (T,) int8 of -1, 0, 1, UNKNOWABLE or EMPTY.
        frames: (T,) int8 of 0, 1 or EMPTY.
        outcome: (``success`` or ``failure``, frame), or None.
        boundaries: First frames of the task stages after the first, ascending.
        preference: ``A``, ``B`` or ``tie``, of a pair.
        complete: Whether they are done with it.
        skipped: Why they passed it over, or None.
    """

    tri: np.ndarray
    frames: np.ndarray
    outcome: tuple[str, int] | None = None
    boundaries: tuple[int, ...] = field(default=())
    preference: str | None = None
    complete: bool = False
    skipped: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return it as the page reads it."""
        names = {UNKNOWABLE: UNKNOWN}
        return {
            "tri": [[start, stop, names.get(value, value)] for start, stop, value in runs(self.tri)],
            "frames": [list(run) for run in runs(self.frames)],
            "outcome": None if self.outcome is None else {"value": self.outcome[0], "frame": self.outcome[1]},
            "boundaries": list(self.boundaries),
            "preference": self.preference,
            "complete": self.complete,
            "skipped": self.skipped,
        }


def runs(values: np.ndarray) -> list[tuple[int, int, int]]:
    """Return maximal runs (start, stop, value) of equal values, those of EMPTY left out."""
    edges = np.flatnonzero(np.diff(values)) + 1
    starts, stops = np.concatenate([[0], edges]), np.concatenate([edges, [len(values)]])
    found = zip(starts.tolist(), stops.tolist(), strict=True)
    return [(start, stop, int(values[start])) for start, stop in found if start < stop and values[start] != EMPTY]


def alive(events: Sequence[Event]) -> list[Event]:
    """Return the events that count, in order: neither undone nor about undoing.

    An undo or redo speaks of an event before it and overrules what was said of it before. It may itself be undone.

    Args:
        events: Of one annotator and item, in order.
    """
    present: dict[str, bool] = {}
    kept = []
    for event in reversed(events):
        if not present.get(event.ulid, True):
            continue
        if event.op in ("undo", "redo"):
            present.setdefault(event.value, event.op == "redo")
        else:
            kept.append(event)
    return kept[::-1]


def _paint(state: State, event: Event) -> State:
    value = {None: EMPTY, UNKNOWN: UNKNOWABLE}.get(event.value, event.value)
    state.tri[event.start : event.stop] = value
    return state


def _frame_reward(state: State, event: Event) -> State:
    state.frames[event.start : event.stop] = EMPTY if event.value is None else event.value
    return state


def _outcome(state: State, event: Event) -> State:
    assert event.start is not None
    return replace(state, outcome=None if event.value is None else (event.value, event.start))


def _boundary(state: State, event: Event) -> State:
    assert event.start is not None
    others = set(state.boundaries) - {event.start}
    return replace(state, boundaries=tuple(sorted(others | {event.start} if event.value else others)))


_APPLY: Mapping[str, Callable[[State, Event], State]] = {
    "paint": _paint,
    "frame_reward": _frame_reward,
    "outcome": _outcome,
    "boundary": _boundary,
    "prefer": lambda state, event: replace(state, preference=event.value),
    "complete": lambda state, _: replace(state, complete=True, skipped=None),
    "skip": lambda state, event: replace(state, complete=False, skipped=event.value),
    "reopen": lambda state, _: replace(state, complete=False, skipped=None),
}


def fold_item(events: Sequence[Event], length: int) -> State:
    """Return what one person says about one item; later events overwrite earlier ones.

    Args:
        events: Of one annotator and item, in order, each once.
        length: Frames of the episode; 0 for a pair.
    """
    state = State(tri=np.full(length, EMPTY, np.int8), frames=np.full(length, EMPTY, np.int8))
    for event in alive(events):
        state = _APPLY[event.op](state, event)
    return state


def completed(events: Sequence[Event]) -> bool:
    """Tell whether a person is done with an item: of completing, skipping and reopening, the last that counts decides.

    Args:
        events: Of one annotator and item, in order.
    """
    closing = [event.op for event in alive(events) if event.op in ("complete", "skip", "reopen")]
    return closing[-1:] == ["complete"]


def first_pass(events: Sequence[Event]) -> list[Event]:
    """Return the events up to the first completion: after it a person may have seen what others and models say.

    Args:
        events: Of one annotator and item, in order.

    Returns:
        Nothing where they never completed it.
    """
    ends = [place for place, event in enumerate(events, start=1) if event.op == "complete"]
    return list(events[: ends[0]]) if ends else []


def reopened(events: Sequence[Event]) -> bool:
    """Tell whether a person took back that they were done.

    Args:
        events: Of one annotator and item, in order.
    """
    ends = {event.ulid for event in events if event.op == "complete"}
    later = events[len(first_pass(events)) :]
    return bool(ends) and any(event.op == "reopen" or (event.op == "undo" and event.value in ends) for event in later)


def fold(events: Iterable[Event], lengths: Sequence[int]) -> dict[tuple[str, str], State]:
    """Return what each person says about each item, by (annotator, item).

    The result depends on the set of events alone: not on their order, repetition, or division among files.

    Args:
        events: Of anybody about anything.
        lengths: Frames of each episode.
    """
    return {key: fold_item(found, item_length(key[1], lengths)) for key, found in by_annotator_and_item(events).items()}


def item_length(item: str, lengths: Sequence[int]) -> int:
    """Return the frames of an item, 0 for a pair."""
    kind, _, name = item.partition(":")
    return int(lengths[int(name)]) if kind == "episode" else 0
