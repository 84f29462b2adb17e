"""Confidence intervals for success rates and for the difference between two of them.

The score interval is Wilson's (1927). Differences use Newcombe's square-and-add intervals ("method 10"): Statistics in
Medicine 17 (1998), pages 873-890 for independent samples and 2635-2650 for paired ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Z_95 = 1.959963984540054
RESAMPLES = 10_000


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate and its 95 % interval, all as fractions."""

    estimate: float
    low: float
    high: float


def wilson(successes: int, n: int) -> Interval:
    """Return the success rate with Wilson's 95 % score interval.

    Raises:
        ValueError: If ``n`` is not positive or ``successes`` is not in 0..n.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} episodes")
    rate = successes / n
    scale = 1 + Z_95**2 / n
    centre = (rate + Z_95**2 / (2 * n)) / scale
    half = Z_95 * math.sqrt(rate * (1 - rate) / n + Z_95**2 / (4 * n**2)) / scale
    # At 0 and n the bound is exactly the rate; the subtraction would miss it by a rounding error.
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == n else centre + half
    return Interval(estimate=rate, low=low, high=high)


def _square_and_add(first: Interval, second: Interval, phi: float) -> Interval:
    below, above = first.estimate - first.low, second.high - second.estimate
    low = math.sqrt(max(below**2 - 2 * phi * below * above + above**2, 0.0))
    below, above = second.estimate - second.low, first.high - first.estimate
    high = math.sqrt(max(below**2 - 2 * phi * below * above + above**2, 0.0))
    difference = first.estimate - second.estimate
    return Interval(estimate=difference, low=max(difference - low, -1.0), high=min(difference + high, 1.0))


def clustered(values: NDArray[np.floating], cluster: NDArray[np.int64]) -> Interval:
    """Return the mean with its 95 % percentile bootstrap interval over clusters.

    For episodes that share a start: they are not independent, and an interval that takes them so is too narrow.

    Args:
        values: (n,) successes as 0 and 1, or differences of them.
        cluster: (n,) what each belongs to.
    """
    _, index = np.unique(cluster, return_inverse=True)
    total, size = np.bincount(index, weights=values), np.bincount(index)
    drawn = np.random.default_rng(0).integers(len(size), size=(RESAMPLES, len(size)))
    means = total[drawn].sum(1) / size[drawn].sum(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(estimate=float(np.mean(values)), low=float(low), high=float(high))


def newcombe_unpaired(first: tuple[int, int], second: tuple[int, int]) -> Interval:
    """Return the difference of two independent success rates, first minus second, with its 95 % interval.

    Args:
        first: Successes and episodes of the first policy.
        second: The same of the second.
    """
    return _square_and_add(wilson(*first), wilson(*second), 0.0)


def newcombe_paired(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> Interval:
    """Return the difference of two success rates measured on the same seeds, first minus second.

    Args:
        first: (n,) success of the first policy, one entry for each seed.
        second: (n,) success of the second policy on the same seeds, in the same order.

    Raises:
        ValueError: If the two have different lengths.
    """
    if first.shape != second.shape:
        raise ValueError(f"paired outcomes of different lengths: {first.shape} and {second.shape}")
    n = len(first)
    both = int((first & second).sum())
    only_first, only_second = int((first & ~second).sum()), int((~first & second).sum())
    neither = n - both - only_first - only_second
    margins = (both + only_first) * (only_second + neither) * (both + only_second) * (only_first + neither)
    cross = both * neither - only_first * only_second
    # Newcombe's continuity correction: only a positive association is shrunk.
    corrected = max(cross - n / 2, 0.0) if cross > 0 else float(cross)
    phi = corrected / math.sqrt(margins) if margins else 0.0
    return _square_and_add(wilson(both + only_first, n), wilson(both + only_second, n), phi)
