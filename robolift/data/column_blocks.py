"""Statistics of a column that comes block by block, as often as it is asked for, and is never held whole.

Quantiles are exact without a sort: a float64, read as a whole number in the right way, orders as the number does
(:mod:`robolift.float_order`). One pass counts its upper 16 bits, which tells what those of each wanted order statistic
are; each of three more counts the next 16 of the numbers that share the bits found so far.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import numpy.typing as npt

from robolift.data.statistics import QUANTILES, SHARES, Statistics
from robolift.errors import DataError
from robolift.float_order import double_order_keys, from_double_order_keys

DIGIT = 16
DIGITS = 64 // DIGIT
VALUES = 1 << DIGIT

Blocks = Callable[[], Iterable[np.ndarray]]


def statistics_of_blocks(blocks: Blocks, *, where: str = "") -> Statistics:
    """Return what :func:`~robolift.data.statistics.column_statistics` would of all numbers at once.

    Extremes, count and quantiles are the same to the bit, and so are mean and deviation of a single block; of several
    their sums are added up with one rounding. Memory: a few blocks and half a megabyte for each quantile.

    Args:
        blocks: Called several times; yields the same (rows,) numbers each time, any numeric or boolean dtype.
        where: What the column is, for the error.

    Raises:
        DataError: If no number is finite.
    """
    count = 0
    sums: list[float] = []
    ends: list[np.ndarray] = []
    for numbers in _finite(blocks()):
        count += len(numbers)
        sums.append(_sum(numbers.astype(np.float64)))
        ends.append(np.array([numbers.min(), numbers.max()]))
    if not count:
        raise DataError("a column has no finite value", where=where, expected="at least one number")
    mean = math.fsum(sums) / count
    squares = math.fsum(_sum((numbers.astype(np.float64) - mean) ** 2) for numbers in _finite(blocks()))
    least, most = (pick([pair[end] for pair in ends], keepdims=True) for end, pick in enumerate((np.min, np.max)))
    return {
        "min": least,
        "max": most,
        "mean": np.array([mean]),
        "std": np.array([math.sqrt(squares / count)]),
        "count": np.array([count], np.int64),
        **_quantiles(blocks, count, constant=bool(least == most)),
    }


def _finite(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield the finite numbers of each block that has any; true and false become 1 and 0."""
    for block in blocks:
        numbers = block.astype(np.int64) if block.dtype == np.bool_ else block
        if np.issubdtype(numbers.dtype, np.floating):
            numbers = numbers[np.isfinite(numbers)]
        if len(numbers):
            yield numbers


def _sum(numbers: npt.NDArray[np.float64]) -> float:
    return float(numbers.sum())


def _quantiles(blocks: Blocks, count: int, *, constant: bool) -> Statistics:
    places = SHARES * (count - 1)
    if constant:  # found without looking for it
        number = next(_finite(blocks()))[:1].astype(np.float64) + 0.0
        return dict.fromkeys(QUANTILES, number)
    ranks = sorted({int(rank) for place in places for rank in (math.floor(place), math.ceil(place))})
    search = _Search(np.array(ranks))
    for _ in range(DIGITS):
        for numbers in _finite(blocks()):
            search.add(double_order_keys(numbers.astype(np.float64)))
        search.narrow()
    found = dict(zip(ranks, search.found(), strict=True))
    # NumPy itself interpolates, to the last bit as it does for all numbers.
    pairs = [np.array([found[math.floor(place)], found[math.ceil(place)]]) for place in places]
    shares = [place - math.floor(place) for place in places]
    between = [np.quantile(pair, [share]) for pair, share in zip(pairs, shares, strict=True)]
    return dict(zip(QUANTILES, between, strict=True))


class _Search:
    """Finds the keys at some places of the ascending order of all keys, 16 bits with each pass over them."""

    def __init__(self, ranks: npt.NDArray[np.int64]) -> None:
        self._left = ranks  # place of each among the keys that share its bits found so far
        self._bits = np.zeros(len(ranks), np.uint64)
        self._depth = 0
        self._start()

    def _start(self) -> None:
        self._prefixes, self._which = np.unique(self._bits, return_inverse=True)
        self._counts = np.zeros((len(self._prefixes), VALUES), np.int64)

    def add(self, keys: npt.NDArray[np.uint64]) -> None:
        """See some of the keys, (n,)."""
        shift = np.uint64(64 - DIGIT * (self._depth + 1))
        digits = ((keys >> shift) & np.uint64(VALUES - 1)).astype(np.int64)
        above = keys >> (shift + np.uint64(DIGIT)) if self._depth else keys
        for counts, prefix in zip(self._counts, self._prefixes, strict=True):
            near = digits[above == prefix] if self._depth else digits
            counts += np.bincount(near, minlength=VALUES)

    def narrow(self) -> None:
        """After a pass over all keys: settle the next bits of those that are looked for."""
        upto = np.cumsum(self._counts, axis=1)
        for place, (which, left) in enumerate(zip(self._which, self._left, strict=True)):
            digit = int(np.searchsorted(upto[which], left, side="right"))
            self._left[place] = left - (upto[which, digit] - self._counts[which, digit])
            self._bits[place] = (self._bits[place] << np.uint64(DIGIT)) | np.uint64(digit)
        self._depth += 1
        self._start()

    def found(self) -> npt.NDArray[np.float64]:
        """Return the numbers, (R,), once all bits are known."""
        return from_double_order_keys(self._bits)
