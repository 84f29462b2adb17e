"""How hard a server is pressed: questions a minute, and the wait before it is asked again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 60.0
LONGEST_RETRY_AFTER_S = 600.0


class RateLimit:
    """Spaces questions evenly: a token bucket that holds one token; safe to use from several threads.

    Args:
        per_minute: Most questions in any minute; 0: no limit.
        sleep: Waits some seconds.
        clock: Seconds from any start, never going back.
    """

    def __init__(
        self,
        per_minute: float,
        *,
        sleep: Callable[[float], object] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._interval_s = 60.0 / per_minute if per_minute > 0 else 0.0
        self._sleep = sleep
        self._clock = clock
        self._lock = threading.Lock()
        self._next = clock()

    def acquire(self) -> None:
        """Wait until one more question may be sent."""
        if not self._interval_s:
            return
        with self._lock:
            now = self._clock()
            due = max(now, self._next)
            self._next = due + self._interval_s
        if due > now:
            self._sleep(due - now)


def backoff_s(failures: int, *, jitter: float, retry_after_s: float | None = None) -> float:
    """Return the wait after ``failures`` tries that failed: 1, 2, 4 ... at most 60 seconds, less up to a half.

    Args:
        failures: Tries so far, from 1.
        jitter: In [0, 1); the share of the half that is taken off, so that questions refused together come back apart.
        retry_after_s: What the server asked for, which is kept to exactly.
    """
    if retry_after_s is not None:
        return retry_after_s
    longest = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** (failures - 1))
    return longest * (1 - jitter / 2)


def retry_after_s(header: str | None) -> float | None:
    """Return the seconds that a ``Retry-After`` header asks to wait (RFC 9110: seconds or a date), None without one."""
    if header is None:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        moment = parsedate_to_datetime(header)
    except ValueError:
        return None
    if moment.tzinfo is None:  # the date has no zone, or says that it means none
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
