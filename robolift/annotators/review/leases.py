"""Who works on an item right now: leases as objects, so that several servers on one folder never grant one twice.

``<labels>/leases/<item>/<epoch>.json`` is created exclusively, and the highest epoch counts. Its holder renews it by
writing its own object again: whoever took a later epoch meanwhile has won all the same.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

from robolift import exclusive, storage
from robolift.errors import DataError, RoboliftError

FOLDER = "leases"
SEEN_S = 1.0
IDLE_FACTOR = 10
"""A listing that takes long is not made again before this many times as long have passed."""


@dataclass(frozen=True, kw_only=True)
class Lease:
    """One grant of one item.

    Attributes:
        item: What.
        epoch: Counts the grants of the item from 1.
        annotator: Who holds it.
        session: In which page.
        expires_ms: When it ends by the servers' clocks; 0 once it was given back.
    """

    item: str
    epoch: int
    annotator: str
    session: str
    expires_ms: int


class StaleLeaseError(RoboliftError):
    """The lease is over, or never was this session's; ``holder`` has the item now."""

    def __init__(self, holder: str | None) -> None:
        super().__init__("stale lease")
        self.holder = holder


def clock_ms() -> int:
    """Return the server's time."""
    return int(time.time() * 1000)


class Leases:
    """The leases of one labels folder."""

    def __init__(self, labels: str, *, lease_s: int, now_ms: Callable[[], int] = clock_ms) -> None:
        """Speak of the folder ``labels``, granting ``lease_s`` seconds at a time by the clock ``now_ms``."""
        self._folder = storage.join(labels, FOLDER)
        self._lease_ms = lease_s * 1000
        self._now_ms = now_ms
        self._lock = threading.Lock()
        self._list_again_at = float("-inf")
        self._latest: dict[str, tuple[str, int]] = {}
        self._seen: dict[str, tuple[tuple[str, int], bool, Lease]] = {}
        self._granted: dict[str, dict[str, Lease]] = {}

    def current(self, item: str) -> Lease | None:
        """Return the latest lease of an item, over or not; None if it never had one."""
        names = [name for name, _ in storage.list_files(storage.join(self._folder, _place(item))) if _is_lease(name)]
        return self._read(item, max(names)) if names else None

    def seen(self, item: str) -> Lease | None:
        """Return the latest lease of an item as it was within the last second: for lists, not for decisions."""
        with self._lock:
            self._list()
            place = _place(item)
            latest = self._latest.get(place)
            if latest is None:
                return None
            known = self._seen.get(place)
            # An object that is renewed keeps its size, one that is given back gets a smaller one, and neither happens
            # to a lease that is over. So what was read is right until the lease would end.
            if known is None or known[0] != latest or (known[1] and not self.is_running(known[2])):
                lease = self._read(item, latest[0])
                known = self._seen[place] = (latest, self.is_running(lease), lease)
            return known[2]

    def _list(self) -> None:
        began = time.monotonic()
        if began < self._list_again_at:
            return
        found = sorted((name, size) for name, size in storage.list_files(self._folder) if _is_lease(name))
        self._latest = {}
        for name, size in found:
            place, _, epoch = name.rpartition("/")
            self._latest[place] = (epoch, size)
        self._list_again_at = time.monotonic() + max(SEEN_S, IDLE_FACTOR * (time.monotonic() - began))

    def held(self, annotator: str) -> list[str]:
        """Return the items that this server granted a person and whose leases run, in the order they were taken."""
        with self._lock:
            mine = self._granted.get(annotator, {})
            for item in [item for item, lease in mine.items() if not self.is_running(lease)]:
                del mine[item]
            return list(mine)

    def _note(self, lease: Lease) -> Lease:
        with self._lock:
            self._granted.setdefault(lease.annotator, {})[lease.item] = lease
        return lease

    def is_running(self, lease: Lease | None) -> bool:
        """Tell whether a lease is not over."""
        return lease is not None and self._now_ms() < lease.expires_ms

    def expires_in_s(self, lease: Lease) -> float:
        """Return how long a lease still runs."""
        return max(0, lease.expires_ms - self._now_ms()) / 1000

    def take(self, item: str, *, annotator: str, session: str) -> Lease:
        """Grant an item for the next epoch.

        The same person may take it from their own other page: a reload must not lock them out.

        Raises:
            StaleLeaseError: If somebody else has it, or was quicker.
        """
        before = self.current(item)
        if before is not None and self.is_running(before) and before.annotator != annotator:
            raise StaleLeaseError(before.annotator)
        lease = Lease(
            item=item,
            epoch=before.epoch + 1 if before else 1,
            annotator=annotator,
            session=session,
            expires_ms=self._now_ms() + self._lease_ms,
        )
        if not exclusive.create(self._uri(lease), _content(lease)):
            winner = self.current(item)
            raise StaleLeaseError(winner.annotator if winner else None)
        return self._note(lease)

    def check(self, item: str, epoch: int, *, annotator: str, session: str) -> Lease:
        """Return the lease if it is the latest one, runs, and is this session's.

        Raises:
            StaleLeaseError: If it is not.
        """
        lease = self.current(item)
        mine = lease is not None and (lease.epoch, lease.annotator, lease.session) == (epoch, annotator, session)
        if lease is None or not mine or not self.is_running(lease):
            raise StaleLeaseError(lease.annotator if lease is not None and self.is_running(lease) else None)
        return lease

    def renew(self, item: str, epoch: int, *, annotator: str, session: str) -> Lease:
        """Let a lease run anew under the same epoch.

        Raises:
            StaleLeaseError: If it is over already, or somebody took the item.
        """
        lease = self.check(item, epoch, annotator=annotator, session=session)
        self._write(replace(lease, expires_ms=self._now_ms() + self._lease_ms))
        return self._note(self.check(item, epoch, annotator=annotator, session=session))

    def release(self, item: str, epoch: int, *, annotator: str, session: str) -> None:
        """Give an item back before its time.

        Raises:
            StaleLeaseError: If it was not held.
        """
        over = replace(self.check(item, epoch, annotator=annotator, session=session), expires_ms=0)
        self._write(over)
        self._note(over)

    def _write(self, lease: Lease) -> None:
        storage.write_bytes(self._uri(lease), _content(lease))

    def _read(self, item: str, name: str) -> Lease:
        uri = storage.join(self._folder, _place(item), name)
        try:
            return Lease(**storage.read_json(uri))
        except TypeError as error:
            raise DataError(f"not a lease: {error}", where=uri, mend="delete the file") from None

    def _uri(self, lease: Lease) -> str:
        return storage.join(self._folder, _place(lease.item), f"{lease.epoch:08d}.json")


def _place(item: str) -> str:
    return item.replace(":", "-", 1)


def _is_lease(name: str) -> bool:
    return name.endswith(".json") and not name.rpartition("/")[2].startswith(".")


def _content(lease: Lease) -> bytes:
    return storage.to_json_bytes(asdict(lease))
