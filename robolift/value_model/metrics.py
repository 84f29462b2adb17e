"""How well predicted values rank what they should rank."""

from __future__ import annotations

import numpy as np


def average_ranks(values: np.ndarray) -> np.ndarray:
    """Return 1-based ranks, ties sharing the mean of their places."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[inverse], dtype=np.float64)


def spearman(left: np.ndarray, right: np.ndarray) -> float | None:
    """Return Spearman's rank correlation, None when one side is constant or there are fewer than two values."""
    if len(left) < 2:
        return None
    a, b = average_ranks(left), average_ranks(right)
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale else None


def area_under_curve(positive: np.ndarray, negative: np.ndarray) -> float | None:
    """Return P(positive > negative) + P(equal) / 2, None when one class is empty (Mann and Whitney's U)."""
    if not len(positive) or not len(negative):
        return None
    ranks = average_ranks(np.concatenate([positive, negative]))[: len(positive)]
    above = float(ranks.sum()) - len(positive) * (len(positive) + 1) / 2
    return above / (len(positive) * len(negative))
