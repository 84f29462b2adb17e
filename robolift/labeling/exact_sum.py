"""The sum of float64 numbers that come block by block, rounded once: ``math.fsum`` of all of them, to the bit."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np

from robolift.labeling.returns import FloatArray

SIGNIFICAND = 53
HALF = 26
MOST = 1 << 24
"""Numbers that may be added up at a time: halves of at most 27 bits then stay whole numbers in float64."""


class ExactSum:
    """Adds up finite numbers as whole numbers by exponent, so that neither order nor cut changes a bit of the sum."""

    def __init__(self) -> None:
        self._by_exponent: Counter[int] = Counter()
        self.count = 0

    def add(self, values: FloatArray) -> None:
        """Add finite numbers, (n,)."""
        self.count += len(values)
        for first in range(0, len(values), MOST):
            self._add(values[first : first + MOST].astype(np.float64))

    def _add(self, values: FloatArray) -> None:
        fraction, exponent = np.frexp(values)
        whole = np.ldexp(fraction, SIGNIFICAND)
        high = np.floor(np.ldexp(whole, -HALF))
        low = whole - np.ldexp(high, HALF)
        least = int(exponent.min(initial=0))
        places = exponent - least
        sums = zip(np.bincount(places, weights=high), np.bincount(places, weights=low), strict=True)
        for place, (highs, lows) in enumerate(sums):
            if highs or lows:
                self._by_exponent[place + least] += (int(highs) << HALF) + int(lows)

    def total(self) -> float:
        """Return the sum, rounded once.

        Raises:
            OverflowError: If it is beyond float64.
        """
        least = min(self._by_exponent, default=0)
        whole = sum(number << (exponent - least) for exponent, number in self._by_exponent.items())
        scale = least - SIGNIFICAND
        # Divided as whole numbers, which Python rounds once; scaling by a power of two could round again.
        return whole / (1 << -scale) if scale < 0 else float(whole << scale)

    def mean(self) -> float:
        """Return the sum over the count, NaN of nothing."""
        return self.total() / self.count if self.count else math.nan
