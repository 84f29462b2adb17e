"""What people did on the labelling page: one event an action, checked, ordered, and kept in objects written once.

The objects ``<labels>/events/<annotator>/<session>-<n>.jsonl`` are the only record of people's work; whatever else is
shown or exported is folded from them.
"""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from robolift import exclusive, storage
from robolift.errors import DataError, UsageError

FOLDER = "events"
UNKNOWN = "unknown"
ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")
SESSION = re.compile(r"[A-Za-z0-9]{8,64}")
ANNOTATOR = re.compile(r"[A-Za-z0-9][A-Za-z0-9@._+:-]{0,127}")
ITEM = re.compile(r"episode:(0|[1-9][0-9]{0,11})|pair:[A-Za-z0-9._-]{1,64}")
SURROGATE = re.compile("[\ud800-\udfff]")
MAX_TEXT = 1000
MAX_COUNT = 1 << 42
"""Bounds every number; as milliseconds it is the year 2109."""
CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


@dataclass(frozen=True, kw_only=True)
class Event:
    """One action of one person on one item.

    Attributes:
        ulid: Identity, made where the action happened, so that sending it twice stores one action.
        annotator: Who; set by the server.
        session: Page load it comes from; set by the server.
        seq: Counts the page's events from 1.
        item: ``episode:12`` or ``pair:<pair_id>``.
        lease: Epoch of the lease under which it was accepted; set by the server.
        op: A key of ``OPS``.
        start: First frame it speaks of (``from``).
        stop: Frame behind the last (``to``).
        value: What was said.
        client_ms: The page's clock.
        at_ms: The server's clock.
    """

    ulid: str
    annotator: str
    session: str
    seq: int
    item: str
    lease: int
    op: str
    start: int | None = None
    stop: int | None = None
    value: Any = None
    client_ms: int = 0
    at_ms: int = 0

    @property
    def order(self) -> tuple[int, int, str]:
        """What events of one annotator and item are sorted by."""
        return self.lease, self.seq, self.ulid

    def precedes(self, copy: Event) -> bool:
        """Tell whether this one counts of two stored copies of one event, whichever is read first.

        An event whose acknowledgement was lost is sent again; its copies differ in what the server set.
        """
        return (*self.order, self.to_line()) < (*copy.order, copy.to_line())

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document."""
        document = {**vars(self), "from": self.start, "to": self.stop}
        del document["start"], document["stop"]
        return document

    def to_line(self) -> str:
        """Return canonical JSON in one line."""
        return json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


class EventError(UsageError):
    """An event that can't be taken; ``field`` names what is wrong with it."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


def new_ulid(now_ms: int | None = None) -> str:
    """Return a fresh ULID: 48 bits of milliseconds and 80 random bits in Crockford's base 32."""
    number = (int(time.time() * 1000) if now_ms is None else now_ms) << 80 | secrets.randbits(80)
    return "".join(CROCKFORD[number >> 5 * place & 31] for place in reversed(range(26)))


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MAX_COUNT


def _one_of(allowed: Sequence[Any]) -> Callable[[Any], str | None]:
    def check(value: Any) -> str | None:
        # 1 == True and 0 == False in Python; on the page they are different things.
        fits = any(value == item and type(value) is type(item) for item in allowed)
        return None if fits else f"{value!r}, expected one of {json.dumps(allowed)}"

    return check


def _text(value: Any) -> str | None:
    # Half a surrogate pair is legal JSON and can't be written as UTF-8.
    fits = isinstance(value, str) and len(value.strip()) > 0 and len(value) <= MAX_TEXT and not SURROGATE.search(value)
    return None if fits else f"expected a reason of 1 to {MAX_TEXT} characters"


def _ulid(value: Any) -> str | None:
    return None if isinstance(value, str) and ULID.fullmatch(value) else f"{value!r}, expected the ulid of an event"


@dataclass(frozen=True)
class _Op:
    """What an operation needs: frames (none, one, a range), how its value is checked, the kind of item it is for."""

    frames: str
    value: Callable[[Any], str | None]
    items: tuple[str, ...] = ("episode",)


BOTH = ("episode", "pair")
OPS: Mapping[str, _Op] = {
    "paint": _Op("range", _one_of((-1, 0, 1, UNKNOWN, None))),
    "frame_reward": _Op("range", _one_of((0, 1, None))),
    "outcome": _Op("one", _one_of(("success", "failure", None))),
    "boundary": _Op("one", _one_of((True, False))),
    "undo": _Op("none", _ulid, BOTH),
    "redo": _Op("none", _ulid, BOTH),
    "skip": _Op("none", _text, BOTH),
    "complete": _Op("none", _one_of((None,)), BOTH),
    "reopen": _Op("none", _one_of((None,)), BOTH),
    "prefer": _Op("none", _one_of(("A", "B", "tie")), ("pair",)),
}


def parse(document: Any, *, length: int | None) -> Event:
    """Check one event and return it.

    Args:
        document: Its JSON, complete with what the server sets.
        length: Frames of the episode it speaks of; None for a pair.

    Raises:
        EventError: Naming the first field that is wrong.
    """
    if not isinstance(document, dict):
        raise EventError("event", f"{document!r}, expected an object")
    _check_header(document)
    op = OPS.get(document["op"]) if isinstance(document.get("op"), str) else None
    if op is None:
        raise EventError("op", f"{document.get('op')!r}, expected one of {', '.join(OPS)}")
    kind = document["item"].partition(":")[0]
    if kind not in op.items:
        raise EventError("op", f"{document['op']} is not for a {kind}")
    start, stop = _frames(op, document, length)
    if (problem := op.value(document.get("value"))) is not None:
        raise EventError("value", problem)
    given = {key: value for key, value in document.items() if key not in ("from", "to")}
    return Event(**given, start=start, stop=stop)


def _check_header(document: dict[str, Any]) -> None:
    """Check what all events have."""
    unknown = sorted(set(document) - {*Event.__dataclass_fields__, "from", "to"} | {"start", "stop"} & set(document))
    if unknown:
        raise EventError(unknown[0], "no such field")
    for field, pattern in (("ulid", ULID), ("annotator", ANNOTATOR), ("session", SESSION), ("item", ITEM)):
        if not isinstance(document.get(field), str) or not pattern.fullmatch(document[field]):
            raise EventError(field, f"{document.get(field)!r}, expected {pattern.pattern}")
    for field in ("seq", "lease", "client_ms", "at_ms"):
        if not _whole(document.get(field, 0 if field.endswith("_ms") else None)):
            raise EventError(field, f"{document.get(field)!r}, expected a whole number")
    if not document["seq"]:
        raise EventError("seq", "0, expected a number from 1")


def _frames(op: _Op, document: dict[str, Any], length: int | None) -> tuple[int | None, int | None]:
    start: Any = document.get("from")
    stop: Any = document.get("to")
    last = MAX_COUNT if length is None else length
    if op.frames == "none":
        if start is not None or stop is not None:
            raise EventError("from" if start is not None else "to", f"{document['op']} speaks of no frame")
        return None, None
    if not _whole(start) or start >= last:
        raise EventError("from", f"{start!r}, expected a frame from 0 to {last - 1}")
    if op.frames == "one":
        if stop is not None:
            raise EventError("to", f"{document['op']} speaks of one frame")
        return int(start), None
    if not _whole(stop) or not start < stop <= last:
        raise EventError("to", f"{stop!r}, expected a frame from {start + 1} to {last}")
    return int(start), int(stop)


def folder_of(annotator: str) -> str:
    """Return the name of an annotator's folder: one path component, different for different people."""
    return quote(annotator, safe="@+")


def append(labels: str, events: Sequence[Event], *, number: int) -> None:
    """Store events of one annotator and session as one new object.

    Args:
        labels: The labels folder.
        events: At least one.
        number: Number to try first; one that is taken, by another server of the same folder, is passed over.
    """
    folder, session = folder_of(events[0].annotator), events[0].session
    content = "".join(event.to_line() + "\n" for event in events).encode()
    while not exclusive.create(storage.join(labels, FOLDER, folder, f"{session}-{number:06d}.jsonl"), content):
        number += 1


def read_object(uri: str, lengths: Sequence[int]) -> list[Event]:
    """Read one object of events.

    Args:
        uri: Its address.
        lengths: Frames of each episode of the dataset.

    Raises:
        DataError: Naming file and line of the first bad event.
    """
    found = []
    folder = uri.rsplit("/", 2)[1]
    for number, line in enumerate(storage.read_bytes(uri).splitlines(), start=1):
        try:
            document = json.loads(line)
            event = parse(document, length=length_of(document, lengths))
            if folder_of(event.annotator) != folder:
                raise EventError("annotator", f"{event.annotator!r} in the folder of another")
        except (ValueError, EventError) as error:
            raise DataError(
                f"not an event: {error}",
                where=f"{uri}, line {number}",
                expected="one event of the labelling page as JSON",
                mend="restore the file, or take the line out",
            ) from None
        found.append(event)
    return found


def length_of(document: Any, lengths: Sequence[int]) -> int | None:
    """Return how many frames the item of an event has, None for a pair.

    Raises:
        EventError: If it is an episode that the dataset does not have.
    """
    item = document.get("item") if isinstance(document, dict) else None
    match = ITEM.fullmatch(item) if isinstance(item, str) else None
    if match is None or match[1] is None:
        return None
    if int(match[1]) >= len(lengths):
        raise EventError("item", f"{item}, the dataset has {len(lengths)} episodes")
    return int(lengths[int(match[1])])


def list_objects(labels: str, annotator: str | None = None) -> list[str]:
    """Return the names, relative to the labels folder, of all objects of events or of one person's, sorted."""
    folder = FOLDER if annotator is None else f"{FOLDER}/{folder_of(annotator)}"
    names = (f"{folder}/{name}" for name, _ in storage.list_files(storage.join(labels, folder)))
    return [name for name in names if name.endswith(".jsonl") and not name.rpartition("/")[2].startswith(".")]


def by_annotator_and_item(events: Iterable[Event]) -> dict[tuple[str, str], list[Event]]:
    """Return events by (annotator, item), each ulid once, in order."""
    first: dict[tuple[str, str], Event] = {}
    for event in events:
        key = (event.annotator, event.ulid)
        if key not in first or event.precedes(first[key]):
            first[key] = event
    groups: dict[tuple[str, str], list[Event]] = {}
    for event in sorted(first.values(), key=lambda event: (event.annotator, event.item, *event.order)):
        groups.setdefault((event.annotator, event.item), []).append(event)
    return groups
