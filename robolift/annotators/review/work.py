"""What everybody did so far, read from the labels folder and kept up with it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from robolift import storage
from robolift.annotators.review.assignment import Standing
from robolift.annotators.review.events import Event, list_objects, read_object
from robolift.annotators.review.fold import State, first_pass, fold_item, item_length

READERS = 16
FRESH_S = 1.0
IDLE_FACTOR = 10


class Work:
    """All events of a labels folder in memory; safe to use from several threads.

    Objects of events never change, so catching up with other servers is one listing and reading what is new in it.

    Attributes:
        version: Grows with whatever is added.
    """

    def __init__(self, labels: str, lengths: Sequence[int]) -> None:
        """Read the folder ``labels`` of a dataset whose episodes have ``lengths`` frames.

        Raises:
            DataError: If an object of events is damaged.
        """
        self.version = 0
        self._labels = labels
        self._lengths = lengths
        self._lock = threading.RLock()
        self._read: set[str] = set()
        self._look_again_at = float("-inf")
        self._look_at_one_again_at: dict[str, float] = {}
        self._events: dict[tuple[str, str], dict[str, Event]] = {}
        self._ulids: dict[str, set[str]] = {}
        self._standings: dict[str, Standing] = {}
        self.refresh()

    def refresh(self) -> None:
        """Read what was stored since the last time, unless that is so short ago that another look would not pay.

        Many objects take long to list, and being late costs little: a second answer where one would have done.
        """
        with self._lock:
            began = time.monotonic()
            if began >= self._look_again_at:
                self._read_new(list_objects(self._labels))
                self._look_again_at = time.monotonic() + max(FRESH_S, IDLE_FACTOR * (time.monotonic() - began))

    def refresh_one(self, annotator: str, *, surely: bool = False) -> None:
        """Read what a person stored since the last time, through whichever server.

        Where their many objects take long to list, they are not listed again before some time has passed, except if it
        must be known ``surely``.
        """
        with self._lock:
            began = time.monotonic()
            if surely or began >= self._look_at_one_again_at.get(annotator, began):
                self._read_new(list_objects(self._labels, annotator))
                ended = time.monotonic()
                self._look_at_one_again_at[annotator] = ended + IDLE_FACTOR * (ended - began)

    def _read_new(self, names: Iterable[str]) -> None:
        fresh = [name for name in names if name not in self._read]
        uris = [storage.join(self._labels, name) for name in fresh]
        with ThreadPoolExecutor(READERS) as pool:
            found = list(pool.map(lambda uri: read_object(uri, self._lengths), uris))
        self._read.update(fresh)
        self.add(event for events in found for event in events)

    def add(self, events: Iterable[Event]) -> None:
        """Take events into account; what is there already changes nothing."""
        with self._lock:
            touched = set()
            for event in events:
                known = self._events.setdefault((event.annotator, event.item), {})
                if event.ulid not in known or event.precedes(known[event.ulid]):
                    known[event.ulid] = event
                    self._ulids.setdefault(event.annotator, set()).add(event.ulid)
                    touched.add((event.annotator, event.item))
            for annotator, item in sorted(touched):
                self._note(annotator, item)
            self.version += len(touched)

    def _note(self, annotator: str, item: str) -> None:
        state, before, me = self.state(annotator, item), self.standing(item), {annotator}
        self._standings[item] = Standing(
            done=before.done | me if state.complete else before.done - me,
            skipped=before.skipped | me if state.skipped else before.skipped - me,
            started=before.started - me if state.complete or state.skipped else before.started | me,
        )

    def events(self, annotator: str, item: str) -> list[Event]:
        """Return a person's events on an item, in order."""
        with self._lock:
            return sorted(self._events.get((annotator, item), {}).values(), key=lambda event: event.order)

    def count(self, annotator: str, item: str) -> int:
        """Return how many events of a person on an item there are."""
        return len(self._events.get((annotator, item), ()))

    def state(self, annotator: str, item: str) -> State:
        """Return what a person says about an item."""
        return fold_item(self.events(annotator, item), item_length(item, self._lengths))

    def first_pass(self, annotator: str, item: str) -> State:
        """Return what a person said about an item until they first completed it."""
        return fold_item(first_pass(self.events(annotator, item)), item_length(item, self._lengths))

    def has(self, annotator: str, ulid: str) -> bool:
        """Tell whether an event is stored."""
        with self._lock:
            return ulid in self._ulids.get(annotator, ())

    def standing(self, item: str) -> Standing:
        """Return how far people are with an item."""
        return self._standings.get(item, Standing())

    def standings(self) -> dict[str, Standing]:
        """Return the same for every item that anybody touched."""
        with self._lock:
            return dict(self._standings)

    def annotators(self) -> list[str]:
        """Return everybody who did something, sorted."""
        with self._lock:
            return sorted(self._ulids)

    def states(self, item: str) -> dict[str, State]:
        """Return what everybody who completed an item says about it, by name, sorted."""
        return {annotator: self.state(annotator, item) for annotator in sorted(self.standing(item).done)}
