"""How numbers are written in the run card: thin spaces, true minus signs, no more digits than they deserve."""

from __future__ import annotations

from robolift.reports.intervals import Interval

THIN = "\u202f"
MINUS = "\u2212"
NOTHING = "\u2013"


def per_cent(share: float | None) -> str:
    """Return a share as whole per cent, ``82 %``; a dash for None."""
    return NOTHING if share is None else f"{round(100 * share)}{THIN}%"


def points(difference: float) -> str:
    """Return a difference of shares in whole percentage points, signed: ``+68``."""
    value = round(100 * difference)
    return "0" if value == 0 else f"{'+' if value > 0 else MINUS}{abs(value)}"


def interval_points(interval: Interval) -> str:
    """Return the ends of a difference's interval: ``+57 to +77``."""
    return f"{points(interval.low)} to {points(interval.high)}"


def interval_per_cent(interval: Interval) -> str:
    """Return the ends of a rate's interval: ``73 to 88 %``."""
    return f"{round(100 * interval.low)} to {per_cent(interval.high)}"


def count(number: int) -> str:
    """Return a count with thin spaces between thousands."""
    return f"{number:,}".replace(",", THIN)


def decimal(number: float | None, digits: int = 2) -> str:
    """Return a number with so many decimals; a dash for None."""
    return NOTHING if number is None else f"{number:.{digits}f}".replace("-", MINUS)
