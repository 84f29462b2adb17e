"""Statistics of columns and images, per episode and over a dataset, with the fields LeRobot stores.

Each is a dict of arrays: ``min``, ``max``, ``mean``, ``std`` (population), ``count`` and the quantiles ``q01`` to
``q99`` (linear). A column of width d has shape (d,), a scalar (1,), an image (3, 1, 1) in [0, 1]; ``count`` is (1,).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from robolift.errors import DataError

QUANTILES: dict[str, float] = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
SHARES = np.array(list(QUANTILES.values()))
# Below this, sums of whole numbers are exact in float64.
EXACT_SUM = 1 << 53
MIN_SAMPLES = 100
MAX_SAMPLES = 10_000
SAMPLE_POWER = 0.75
STATISTICS_PIXELS = 150
STRIDE_THRESHOLD_PIXELS = 300

Statistics = dict[str, np.ndarray]


def column_statistics(values: np.ndarray, *, where: str = "") -> Statistics:
    """Return the statistics of one numeric column.

    Rows with a NaN or an infinity are left out and not counted, because a column may hold NaN for "not known".

    Args:
        values: (rows,) or (rows, d), any numeric or boolean dtype.
        where: What the column is, for the error.

    Raises:
        DataError: If no row is finite.
    """
    rows = values.reshape(len(values), -1)
    if rows.dtype == np.bool_:
        rows = rows.astype(np.int64)
    if np.issubdtype(rows.dtype, np.floating):
        rows = rows[np.isfinite(rows).all(axis=1)]
    if not len(rows):
        raise DataError("a column has no finite value", where=where, expected="at least one number")
    if _is_one_whole_number(rows):
        return _constant_statistics(rows)
    exact = rows.astype(np.float64)
    quantiles = _whole_quantiles(exact) if rows.dtype.kind in "iu" else np.quantile(exact, SHARES, axis=0)
    return {
        "min": rows.min(axis=0),
        "max": rows.max(axis=0),
        "mean": exact.mean(axis=0),
        "std": exact.std(axis=0),
        "count": np.array([len(rows)], np.int64),
        **dict(zip(QUANTILES, quantiles, strict=True)),
    }


def _is_one_whole_number(rows: np.ndarray) -> bool:
    """Tell whether each column holds one whole number, and the sum of its rows is exact in float64."""
    if rows.dtype.kind not in "iu" or (rows != rows[0]).any():
        return False
    return bool(np.abs(rows[0].astype(np.float64)).max() * len(rows) < EXACT_SUM)


def _constant_statistics(rows: np.ndarray) -> Statistics:
    """Return the statistics of one whole number in each column, to the bit what sums of it give: they are exact."""
    number, least = rows[0].astype(np.float64), rows[0].copy()  # a view would keep all rows in memory
    fields = {"min": least, "max": least, "mean": number, "std": np.zeros_like(number)}
    return {**fields, "count": np.array([len(rows)], np.int64), **dict.fromkeys(QUANTILES, number)}


def _whole_quantiles(rows: np.ndarray) -> np.ndarray:
    """Return ``numpy.quantile`` of whole numbers, to the bit, (5, d), in a part of the time that short columns take it.

    Not of others: which of -0 and 0 a quantile is depends on how they are sorted.
    """
    ordered = np.sort(rows, axis=0)
    place = SHARES * (len(rows) - 1)
    below = np.floor(place).astype(np.intp)
    low, high = ordered[below], ordered[np.minimum(below + 1, len(rows) - 1)]
    share, rise = (place - below)[:, None], high - low
    found: np.ndarray = np.where(share >= 0.5, high - rise * (1 - share), low + rise * share)
    return found


def sample_indices(length: int) -> np.ndarray:
    """Return the frames of an episode whose images enter its statistics: all of a short one, T^0.75 of a long one.

    Matches LeRobot's ``sample_indices``: max(min(T, 100), min(floor(T^0.75), 10000)) frames, evenly spaced.
    """
    count = max(min(length, MIN_SAMPLES), min(int(length**SAMPLE_POWER), MAX_SAMPLES))
    return np.round(np.linspace(0, length - 1, count)).astype(np.int64)


class ImageStatistics:
    """Statistics of uint8 RGB images in one pass, exact in all fields: they are kept as a histogram per channel."""

    def __init__(self) -> None:
        self._histogram = np.zeros((3, 256), np.int64)
        self._images = 0

    def add(self, image: np.ndarray) -> None:
        """Count one (H, W, 3) uint8 image; large ones are strided down to about 150 pixels, as LeRobot does."""
        height, width = image.shape[:2]
        longest = max(height, width)
        stride = 1 if longest < STRIDE_THRESHOLD_PIXELS else longest // STATISTICS_PIXELS
        small = image[::stride, ::stride]
        for channel in range(3):
            self._histogram[channel] += np.bincount(small[..., channel].ravel(), minlength=256)
        self._images += 1

    def merge(self, other: ImageStatistics) -> None:
        """Count the images of another one too."""
        self._histogram += other._histogram
        self._images += other._images

    def result(self) -> Statistics:
        """Return the statistics, each (3, 1, 1) in [0, 1]; ``count`` is the number of images.

        Raises:
            DataError: If no image was added.
        """
        if not self._images:
            raise DataError("no image to take statistics of", expected="at least one frame")
        levels = np.arange(256) / 255.0
        weights = self._histogram / self._histogram.sum(axis=1, keepdims=True)
        mean = weights @ levels
        variance = (weights * (levels - mean[:, None]) ** 2).sum(axis=1)
        seen = self._histogram > 0
        fields = {
            "min": levels[seen.argmax(axis=1)],
            "max": levels[255 - seen[:, ::-1].argmax(axis=1)],
            "mean": mean,
            "std": np.sqrt(variance),
            **{name: self._quantile(q) for name, q in QUANTILES.items()},
        }
        shaped = {name: value.reshape(3, 1, 1) for name, value in fields.items()}
        return {**shaped, "count": np.array([self._images], np.int64)}

    def _quantile(self, q: float) -> np.ndarray:
        """Return the linear quantile of each channel, what ``np.quantile`` of all its pixels would be."""
        cumulative = self._histogram.cumsum(axis=1)
        position = q * (cumulative[:, -1] - 1)
        lower = np.floor(position)
        ends = [
            np.array([np.searchsorted(row, rank, side="right") for row, rank in zip(cumulative, ranks, strict=True)])
            for ranks in (lower, np.ceil(position))
        ]
        return np.asarray((ends[0] + (ends[1] - ends[0]) * (position - lower)) / 255.0)


def aggregate(parts: Sequence[Statistics]) -> Statistics:
    """Merge the statistics of one feature over several episodes.

    ``min``, ``max``, ``mean``, ``std`` and ``count`` are exact (parallel variance, Chan et al. 1979). Quantiles can't
    be merged exactly; they are the mean weighted by count, as LeRobot's ``aggregate_feature_stats`` does.

    Raises:
        DataError: If there is nothing to merge or the shapes differ.
    """
    if not parts:
        raise DataError("no statistics to merge", expected="at least one episode")
    if len({part["mean"].shape for part in parts}) > 1:
        raise DataError("statistics of different shapes can't be merged", expected="one shape for a feature")
    fields = [name for name in parts[0] if all(name in part for part in parts)]
    return aggregate_rows({name: np.stack([part[name] for part in parts]) for name in fields})


def aggregate_rows(parts: Mapping[str, np.ndarray]) -> Statistics:
    """Return :func:`aggregate` of the rows of arrays, ``count`` (E, 1) and the others (E, ...), an episode each.

    A quantile that some episodes lack, so that it has fewer rows, is left out.
    """
    counts = parts["count"].reshape(-1).astype(np.float64)
    total = counts.sum()
    shaped = counts.reshape(-1, *([1] * (parts["mean"].ndim - 1)))
    mean = (parts["mean"] * shaped).sum(axis=0) / total
    spread = parts["std"] ** 2 + (parts["mean"] - mean) ** 2
    merged = {
        "min": parts["min"].min(axis=0),
        "max": parts["max"].max(axis=0),
        "mean": mean,
        "std": np.sqrt((spread * shaped).sum(axis=0) / total),
        "count": np.array([int(total)], np.int64),
    }
    for name in QUANTILES:
        if name in parts and len(parts[name]) == len(counts):
            merged[name] = (parts[name] * shaped).sum(axis=0) / total
    return merged


def is_finite(statistics: Statistics) -> bool:
    """Tell whether nothing in them is NaN or infinite."""
    return bool(np.isfinite(np.concatenate([value.reshape(-1) for value in statistics.values()])).all())


def to_json(statistics: Statistics) -> dict[str, Any]:
    """Return the statistics as nested lists."""
    return {name: value.tolist() for name, value in statistics.items()}


def from_json(document: dict[str, Any]) -> Statistics:
    """Return what :func:`to_json` wrote, or what LeRobot's ``stats.json`` holds for one feature."""
    return {name: np.asarray(value) for name, value in document.items()}
