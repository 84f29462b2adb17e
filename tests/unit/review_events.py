"""Events of the labelling page for tests: short to write, with everything that the server would have set."""

from __future__ import annotations

import itertools
from typing import Any

from robolift.annotators.review.events import CROCKFORD, Event, append

SESSION = "SESSION1"
_numbers = itertools.count(1)


def ulid(number: int) -> str:
    """A ULID that is different for different numbers."""
    return "".join(CROCKFORD[number >> 5 * place & 31] for place in reversed(range(26)))


def event(op: str, value: Any = None, start: int | None = None, stop: int | None = None, **given: Any) -> Event:
    """An event of alice on episode 0, later than those made before it unless told otherwise."""
    number = next(_numbers)
    fields = {"annotator": "alice", "session": SESSION, "item": "episode:0", "lease": 1, "seq": number, "at_ms": number}
    return Event(**{**fields, "ulid": ulid(number), **given}, op=op, value=value, start=start, stop=stop)


def store(labels: str, *events: Event) -> None:
    """Store events as the server does, one object for each annotator and session."""
    key = lambda found: (found.annotator, found.session)  # noqa: E731
    for _, group in itertools.groupby(sorted(events, key=key), key=key):
        append(labels, list(group), number=1)
