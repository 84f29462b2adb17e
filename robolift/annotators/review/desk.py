"""What a person can do: get an item, keep it, say something about it, look at what they and others said."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from robolift.annotators.review import assignment, events
from robolift.annotators.review.consensus import Consensus, consensus
from robolift.annotators.review.events import Event, EventError
from robolift.annotators.review.fold import completed, fold_item, item_length
from robolift.annotators.review.job import Gold, Job
from robolift.annotators.review.leases import Lease, Leases, StaleLeaseError, clock_ms
from robolift.annotators.review.pairs import Pair
from robolift.annotators.review.work import Work

MAX_EVENTS = 500
MAX_HELD = 4
"""Most items that one person may hold, at one server, without being done with them."""
OTHER_CLIP = {"A": "B", "B": "A"}


class NoSuchItemError(Exception):
    """There is no such episode, clip or pair."""


class TooManyHeldError(Exception):
    """A person holds ``held`` already and is to finish or give back one before taking another."""

    def __init__(self, held: Sequence[str]) -> None:
        super().__init__(f"you hold {len(held)} items already: {', '.join(held)}; finish or release one")
        self.held = held


class UnseenError(Exception):
    """What is sent was said without knowing all that the person said of the item before, from another page."""


@dataclass(frozen=True)
class Seen:
    """What a page knew of a person's events on an item when it sent more.

    Attributes:
        ulid: The last stored one in order, None if it knew of none.
    """

    ulid: str | None


@dataclass(frozen=True)
class Person:
    """Who asks, and from which page."""

    annotator: str
    session: str


class Desk:
    """The work of one labels folder, as people meet it; safe to use from several threads.

    Attributes:
        labels: The folder.
        job: The rules.
        items: All items by mode (``episode``, ``pair``), in the order of the queue.
        needs: People needed for each item.
        pairs: Pairs by id.
        gold: Items with known answers.
        work: What was done so far.
        leases: Who works on what.
    """

    def __init__(
        self,
        labels: str,
        job: Job,
        *,
        lengths: Sequence[int],
        pairs: Mapping[str, Pair],
        gold: Mapping[str, Gold],
        now_ms: Callable[[], int] = clock_ms,
    ) -> None:
        """Open the folder ``labels`` for a dataset whose episodes have ``lengths`` frames.

        Raises:
            DataError: If an object of events is damaged.
        """
        self.labels = labels
        self._lengths = lengths
        self._now_ms = now_ms
        self._numbers: dict[str, int] = {}
        self._finished: dict[str, set[tuple[str, int]]] = {}
        self._lock = threading.Lock()
        self._taking: dict[str, set[str]] = {}
        self._agreed: dict[str, tuple[tuple[str, ...], int, Consensus]] = {}
        self.job = job
        self.pairs = pairs
        self.gold = gold
        self.items = {
            "episode": [f"episode:{number}" for number in range(len(lengths))] if job.ask else [],
            "pair": [f"pair:{pair_id}" for pair_id in pairs],
        }
        self.needs = {
            item: assignment.needed(
                item, seed=job.seed, overlap=job.overlap, annotators_per_item=job.annotators_per_item
            )
            for items in self.items.values()
            for item in items
        }
        self.work = Work(labels, lengths)
        self.leases = Leases(labels, lease_s=job.lease_s, now_ms=now_ms)

    def check_item(self, item: str) -> None:
        """Check that there is such an item.

        Raises:
            NoSuchItemError: If not.
        """
        if item not in self.needs:
            raise NoSuchItemError(item)

    def next(self, person: Person, mode: str, *, after: str | None = None) -> tuple[Lease | None, str]:
        """Take the next item for a person, and give back what their page has finished.

        Returns:
            The lease, or None and why there is nothing.
        """
        for item, epoch in self._finished.pop(person.session, ()):
            with suppress(StaleLeaseError):
                self.leases.release(item, epoch, **vars(person))
        self.work.refresh()
        offers = assignment.candidates(
            self.items[mode],
            self.work.standings(),
            person.annotator,
            needs=self.needs,
            gold=self.gold,
            gold_rate=self.job.gold_rate,
            seed=self.job.seed,
            after=after,
        )
        reason = "others work on all that is left" if offers else "nothing is left for you"
        for item in offers:
            try:
                return self.take(person, item), ""
            except StaleLeaseError:
                continue
            except TooManyHeldError as refused:  # what they hold already is still theirs to go on with
                reason = str(refused)
        return None, reason

    def take(self, person: Person, item: str) -> Lease:
        """Grant an item to a person; nobody may keep many from the others.

        Raises:
            StaleLeaseError: If somebody else has it, or was quicker.
            TooManyHeldError: If they hold as many others as one may.
        """
        with self._lock:
            taking = self._taking.setdefault(person.annotator, set())
            held = [
                other
                for other in dict.fromkeys([*self.leases.held(person.annotator), *taking])
                if other != item and not self._finished_by(person.annotator, other)
            ]
            if len(held) >= MAX_HELD:
                raise TooManyHeldError(held)
            taking.add(item)
        try:
            return self.leases.take(item, **vars(person))
        finally:
            with self._lock:
                taking.discard(item)

    def _finished_by(self, annotator: str, item: str) -> bool:
        standing = self.work.standing(item)
        return annotator in standing.done | standing.skipped

    def submit(
        self, person: Person, item: str, epoch: int, documents: Sequence[Any], *, seen: Seen | None = None
    ) -> list[str]:
        """Store a person's events on an item they hold.

        Sending again what was stored is answered as before and stores nothing.

        Args:
            person: Who.
            item: What they speak of.
            epoch: Epoch of their lease of it.
            documents: The events as JSON.
            seen: What their page knew; None: it doesn't matter.

        Returns:
            The events' ulids.

        Raises:
            EventError: If an event is malformed or can't be done; then none is stored.
            NoSuchItemError: If there is no such item.
            StaleLeaseError: If it is not theirs at that epoch.
            UnseenError: If there are events that their page did not know.
        """
        self.check_item(item)
        given = [self._parse(person, item, epoch, document, place) for place, document in enumerate(documents)]
        fresh = {event.ulid: event for event in given if not self.work.has(person.annotator, event.ulid)}
        if fresh:
            self.leases.check(item, epoch, annotator=person.annotator, session=person.session)
            if seen is not None:
                self._check_seen(person.annotator, item, seen, sent={event.ulid for event in given})
            self._check_possible(person.annotator, item, list(fresh.values()))
            with self._lock:
                number = self._numbers[person.session] = self._numbers.get(person.session, 0) + 1
            events.append(self.labels, list(fresh.values()), number=number)
            self.work.add(fresh.values())
            standing = self.work.standing(item)
            if person.annotator in standing.done | standing.skipped:
                self._finished.setdefault(person.session, set()).add((item, epoch))
        return [event.ulid for event in given]

    def _check_seen(self, annotator: str, item: str, seen: Seen, *, sent: Collection[str]) -> None:
        self.work.refresh_one(annotator, surely=True)
        known = [event.ulid for event in self.work.events(annotator, item) if event.ulid not in sent]
        if seen.ulid != (known[-1] if known else None):
            raise UnseenError(item)

    def _parse(self, person: Person, item: str, epoch: int, document: Any, place: int) -> Event:
        try:
            if not isinstance(document, dict):
                raise EventError("event", f"{document!r}, expected an object")
            if document.get("item", item) != item:
                raise EventError("item", f"{document['item']!r}, the events are about {item}")
            length = item_length(item, self._lengths) or None
            given = {
                **document,
                "annotator": person.annotator,
                "session": person.session,
                "item": item,
                "lease": epoch,
                "at_ms": self._now_ms(),
            }
            return self._turn(events.parse(given, length=length))
        except EventError as error:
            raise EventError(f"events[{place}].{error.field}", error.message) from None

    def _turn(self, event: Event) -> Event:
        """Translate a preference between what the person sees as A and B and the pair's clips; its own inverse."""
        if event.op != "prefer":
            return event
        swapped = self.is_flipped(event.item.partition(":")[2], event.annotator)
        return replace(event, value=OTHER_CLIP.get(event.value, event.value)) if swapped else event

    def is_flipped(self, pair_id: str, annotator: str) -> bool:
        """Tell whether a person sees clip B of a pair as A."""
        return assignment.flipped(pair_id, annotator, seed=self.job.seed)

    def _check_possible(self, annotator: str, item: str, fresh: Sequence[Event]) -> None:
        before = self.work.events(annotator, item)
        known = {event.ulid for event in [*before, *fresh]}
        for event in fresh:
            if event.op in ("undo", "redo") and event.value not in known:
                self.work.refresh_one(annotator, surely=True)
                if event.value not in {found.ulid for found in self.work.events(annotator, item)}:
                    raise EventError("value", f"{event.value} is no event of yours on {item}")
        _check_open(item, before, sorted(fresh, key=lambda event: event.order))
        everything = sorted([*before, *fresh], key=lambda event: event.order)
        state = fold_item(everything, item_length(item, self._lengths))
        missing = self.job.missing(item, state) if state.complete else None
        if missing:
            raise EventError("op", f"{item} can't be complete: {missing}")

    def mine(self, annotator: str, item: str) -> dict[str, Any]:
        """Return a person's events on an item and what they amount to, as the person sees it."""
        self.check_item(item)
        self.work.refresh_one(annotator)
        shown = [self._turn(event) for event in self.work.events(annotator, item)]
        state = fold_item(shown, item_length(item, self._lengths))
        return {"events": [event.to_dict() for event in shown], "state": state.to_json()}

    def completed(self, annotator: str, item: str) -> bool:
        """Tell whether a person is done with an item."""
        self.check_item(item)
        self.work.refresh()
        return annotator in self.work.standing(item).done

    def others(self, annotator: str, item: str) -> list[dict[str, Any]]:
        """Return what everybody else who completed an item says about it."""
        states = self.work.states(item)
        return [{"name": name, "state": state.to_json()} for name, state in states.items() if name != annotator]

    def agreed(self, item: str) -> Consensus | None:
        """Return the common word on an item, None if nobody completed it; worked out anew only after a change."""
        names = tuple(sorted(self.work.standing(item).done))
        if not names:
            return None
        count = sum(self.work.count(name, item) for name in names)
        held = self._agreed.get(item)
        if held is None or held[:2] != (names, count):
            states = {name: self.work.state(name, item) for name in names}
            held = self._agreed[item] = (names, count, consensus(states, ask=self.job.ask))
        return held[2]


def _check_open(item: str, before: Sequence[Event], fresh: Sequence[Event]) -> None:
    """Let nothing be said of an item that is complete: whoever is done may have seen what others and models say."""
    known, done = list(before), completed(before)
    for event in fresh:
        known.append(event)
        if event.op in ("complete", "skip", "reopen"):
            done = event.op == "complete"
        elif event.op in ("undo", "redo"):
            was, done = done, completed(known)
            if was and done:
                raise EventError("op", f"{item} is complete; reopen it first")
        elif done:
            raise EventError("op", f"{item} is complete; reopen it first")
