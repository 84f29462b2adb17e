"""Exact mean, deviation, extremes and quantiles of float32 vectors that need not fit in memory, in two passes.

No sketch is needed: a float32 has 32 bits, and read as an integer in the right way they order as the numbers do. The
first pass counts the upper 16 bits of every number; that tells which upper half each wanted order statistic has. The
second counts the lower 16 bits below those halves, and the order statistic is known to the bit. Counts and exactly
rounded sums (``math.fsum`` over episodes) do not depend on the order of episodes, so neither does any result.
A dimension has a counter for every half, found without sorting: few dimensions, and nearly every number another one
(where groups are many, :mod:`robolift.labeling.order_statistics` counts only what occurs).

Memory: about 4 MB a dimension for two quantiles, one episode, and two numbers a dimension and episode.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from robolift.errors import DataError
from robolift.float_order import HALF, from_order_keys, order_keys

BINS = 1 << HALF

FloatArray = npt.NDArray[np.float64]
Episodes = Callable[[], Iterable[np.ndarray]]


@dataclass(frozen=True, kw_only=True)
class ExactStatistics:
    """What was measured of N vectors of D numbers; every array is (D,) float64, in the data's units.

    Attributes:
        count: N.
        mean: Arithmetic mean.
        std: Population standard deviation, exactly 0 in a constant dimension.
        minimum: Smallest number.
        maximum: Largest number.
        quantiles: For each quantile asked for what ``numpy.quantile`` (linear) of all vectors at once would give.
    """

    count: int
    mean: FloatArray
    std: FloatArray
    minimum: FloatArray
    maximum: FloatArray
    quantiles: tuple[FloatArray, ...]


def measure(episodes: Episodes, quantiles: Sequence[float]) -> ExactStatistics:
    """Measure vectors that are read twice.

    Args:
        episodes: Called twice; yields the same (T, D) finite float32 arrays both times, in any order. T may be 0.
        quantiles: Which, in [0, 1].

    Raises:
        DataError: If there is no vector, or their widths differ.
    """
    totals = _Totals()
    for rows in episodes():
        totals.add(rows)
    if not totals.count:
        raise DataError("there is no frame to measure", expected="at least one")
    mean = _sum(totals.sums) / totals.count
    places = [q * (totals.count - 1) for q in quantiles]
    ranks = sorted({rank for place in places for rank in (math.floor(place), math.ceil(place))})
    found = _OrderStatistics(totals.upper, ranks)
    squares: list[FloatArray] = []
    for rows in episodes():
        found.add(order_keys(rows))
        squares.append(((rows - mean) ** 2).sum(axis=0))
    values = found.values()
    return ExactStatistics(
        count=totals.count,
        mean=mean,
        std=np.sqrt(_sum(squares) / totals.count),
        minimum=totals.minimum.astype(np.float64),
        maximum=totals.maximum.astype(np.float64),
        quantiles=tuple(_between(values, ranks, place) for place in places),
    )


def _sum(parts: Sequence[FloatArray]) -> FloatArray:
    """Return the (D,) sum of (D,) parts, rounded once, so that their order is nothing to it."""
    return np.array([math.fsum(column) for column in np.stack(parts, axis=1)])


def _between(values: Sequence[FloatArray], ranks: Sequence[int], place: float) -> FloatArray:
    """Return the values at a place between two ranks, interpolated by NumPy itself, to the last bit as it does."""
    pair = [values[ranks.index(rank)] for rank in (math.floor(place), math.ceil(place))]
    return np.asarray(np.quantile(np.stack(pair), place - math.floor(place), axis=0), np.float64)


class _Totals:
    """The first pass: sums, extremes, and how many numbers have which upper half."""

    def __init__(self) -> None:
        self.count = 0
        self.sums: list[FloatArray] = []
        self.minimum = self.maximum = np.zeros(0, np.float32)
        self.upper: npt.NDArray[np.int64] = np.zeros((0, BINS), np.int64)  # (D, BINS)

    def add(self, rows: np.ndarray) -> None:
        if not len(rows):
            return
        if not self.count:
            self.minimum, self.maximum = rows.min(axis=0), rows.max(axis=0)
            self.upper = np.zeros((rows.shape[1], BINS), np.int64)
        if rows.shape[1] != len(self.upper):
            raise DataError(f"a vector has {rows.shape[1]} numbers", expected=f"{len(self.upper)}, as those before")
        self.count += len(rows)
        self.sums.append(rows.sum(axis=0, dtype=np.float64))
        self.minimum = np.minimum(self.minimum, rows.min(axis=0))
        self.maximum = np.maximum(self.maximum, rows.max(axis=0))
        _count(self.upper, order_keys(rows) >> HALF)


class _OrderStatistics:
    """The second pass: the lower halves of the numbers that share the upper half of a wanted one."""

    def __init__(self, upper: npt.NDArray[np.int64], ranks: Sequence[int]) -> None:
        below = np.cumsum(upper, axis=1)  # (D, BINS): how many numbers have at most this upper half
        # For each rank and dimension, (R, D): the upper half of the number there, and its rank among those sharing it.
        self._upper = np.array([[np.searchsorted(row, rank, side="right") for row in below] for rank in ranks])
        before = np.take_along_axis(below - upper, self._upper.T, axis=1).T
        self._rank = np.array(ranks)[:, None] - before
        self._lower = np.zeros((len(ranks), len(upper), BINS), np.int64)

    def add(self, keys: npt.NDArray[np.uint32]) -> None:
        for counts, upper in zip(self._lower, self._upper, strict=True):
            _count(counts, keys & (BINS - 1), keys >> HALF == upper)

    def values(self) -> list[FloatArray]:
        """Return (D,) for each rank."""
        found = []
        for counts, upper, ranks in zip(self._lower, self._upper, self._rank, strict=True):
            below = np.cumsum(counts, axis=1)
            lower = [np.searchsorted(row, rank, side="right") for row, rank in zip(below, ranks, strict=True)]
            keys = (upper << HALF) + np.array(lower)
            found.append(from_order_keys(keys.astype(np.uint32)).astype(np.float64))
        return found


def _count(counts: npt.NDArray[np.int64], bins: np.ndarray, chosen: np.ndarray | None = None) -> None:
    """Add 1 to ``counts[d, bins[t, d]]`` for all t and d, or for the ``chosen`` (T, D) ones."""
    flat = bins.astype(np.int64) + np.arange(len(counts)) * BINS
    np.add.at(counts.reshape(-1), (flat if chosen is None else flat[chosen]).reshape(-1), 1)
