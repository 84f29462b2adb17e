"""Order statistics of more numbers than fit in memory, exact, from seeing all of them twice.

A float32 read as an integer in the right way orders as the number does (:mod:`robolift.float_order`).
The first pass counts the upper bits, which tell where each wanted order statistic lies; the second counts the lower 16
bits there. Here a group's number stands above the bits of the number, so that one order holds all groups one after the
other, and counts are kept only of what occurs: thousands of groups cost what their numbers differ by.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from robolift.float_order import HALF, from_order_keys, order_keys
from robolift.labeling.returns import Float64Array, FloatArray, IntArray

Int64Array = npt.NDArray[np.int64]
LOWER = (1 << HALF) - 1
NUMBER = 2 * HALF
"""Bits of a number, below those of its group."""


def to_codes(group: IntArray, values: FloatArray) -> Int64Array:
    """Return integers that order by group and then by number, (n,).

    Args:
        group: Number of each group, at least 0, (n,).
        values: Numbers, not NaN, (n,) float32; -0 counts as 0.
    """
    return (group.astype(np.int64) << NUMBER) | order_keys(values.astype(np.float32, copy=False))


def values_of(codes: Int64Array) -> Float64Array:
    """Return the numbers of :func:`to_codes`, (n,)."""
    return from_order_keys((codes & ((1 << NUMBER) - 1)).astype(np.uint32)).astype(np.float64)


class Tally:
    """Counts how often each whole number occurs; its memory follows how many different ones there are."""

    def __init__(self) -> None:
        self._numbers = self._counts = np.zeros(0, np.int64)
        self._waiting: list[tuple[Int64Array, Int64Array]] = []
        self._num_waiting = 0

    def add(self, numbers: Int64Array) -> None:
        """Count some more, (n,)."""
        found = _sum_equal(np.sort(numbers), np.ones(len(numbers), np.int64))
        self._waiting.append(found)
        self._num_waiting += len(found[0])
        # Merged when they have grown to what is held, so that a number is moved few times however many blocks come.
        if self._num_waiting > len(self._numbers):
            self._merge()

    def result(self) -> tuple[Int64Array, Int64Array]:
        """Return the different numbers in ascending order, and how often each occurs."""
        self._merge()
        return self._numbers, self._counts

    def _merge(self) -> None:
        parts = [(self._numbers, self._counts), *self._waiting]
        numbers, counts = (np.concatenate(part) for part in zip(*parts, strict=True))
        order = np.argsort(numbers, kind="stable")
        self._numbers, self._counts = _sum_equal(numbers[order], counts[order])
        self._waiting, self._num_waiting = [], 0


def _sum_equal(numbers: Int64Array, counts: Int64Array) -> tuple[Int64Array, Int64Array]:
    """Return each of some sorted numbers once, with the sum of its counts."""
    first = np.flatnonzero(np.diff(numbers, prepend=numbers[:1] - 1))
    return numbers[first], np.add.reduceat(counts, first) if len(first) else counts[:0]


class OrderStatistics:
    """Finds single places of the ascending order of all codes, which are shown to it twice."""

    def __init__(self) -> None:
        self._upper = Tally()
        self._lower = Tally()

    def count(self, codes: Int64Array) -> None:
        """First pass: see some of the codes."""
        self._upper.add(codes >> HALF)

    def sizes(self) -> tuple[Int64Array, Int64Array]:
        """Return the numbers of the groups that occur, ascending, and how many codes each has."""
        numbers, counts = self._upper.result()
        return _sum_equal(numbers >> (NUMBER - HALF), counts)

    def seek(self, ranks: Int64Array) -> None:
        """Between the passes: say which places of the whole order are wanted, (R,) from 0."""
        numbers, counts = self._upper.result()
        upto = np.cumsum(counts)
        place = np.searchsorted(upto, ranks, side="right")
        before = (upto - counts)[place]
        self._wanted, self._which = np.unique(numbers[place], return_inverse=True)
        self._before, self._left = before, ranks - before

    def refine(self, codes: Int64Array) -> None:
        """Second pass: see the same codes again, cut into blocks and ordered as you like."""
        upper = codes >> HALF
        place = np.minimum(np.searchsorted(self._wanted, upper), len(self._wanted) - 1)
        near = self._wanted[place] == upper
        self._lower.add((place[near] << HALF) | (codes[near] & LOWER))

    def found(self) -> tuple[Int64Array, Int64Array]:
        """Return the code at each wanted place, (R,), and how many codes lie below it, (R,)."""
        numbers, counts = self._lower.result()
        upto = np.cumsum(counts)
        start = np.append(0, upto)[np.searchsorted(numbers, self._which << HALF)]
        place = np.searchsorted(upto, start + self._left, side="right")
        codes = (self._wanted[self._which] << HALF) | (numbers[place] & LOWER)
        return codes, self._before + (upto - counts)[place] - start
