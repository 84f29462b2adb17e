"""How well one number ranks another: area under the ROC curve and Spearman's rank correlation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def ranks(values: Floats) -> Floats:
    """Return the ranks 1..n of ``values`` (n,); ties share the mean of theirs."""
    order = np.argsort(values)  # in any order among ties, and three times as quick as a stable one
    ordered = values[order]
    edges = np.append(np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])), len(values))
    del ordered  # a column may be of all frames
    result = np.empty(len(values))
    result[order] = np.repeat((edges[:-1] + edges[1:] + 1) / 2, np.diff(edges))
    return result


def auc(scores: Floats, is_good: NDArray[np.bool_]) -> float | None:
    """Return the chance that a good row scores above a bad one, ties counted half (Mann-Whitney).

    Args:
        scores: (n,) finite numbers.
        is_good: (n,) which rows are good.

    Returns:
        A number in [0, 1], None when one of the classes is empty.
    """
    num_good, num_bad = int(is_good.sum()), int((~is_good).sum())
    if num_good == 0 or num_bad == 0:
        return None
    rank_sum = float(ranks(scores)[is_good].sum())
    return (rank_sum - num_good * (num_good + 1) / 2) / (num_good * num_bad)


def spearman(first: Floats, second: Floats) -> float | None:
    """Return Spearman's rank correlation of two columns (n,), None when one of them is constant."""
    if len(first) < 2:
        return None
    a, b = ranks(first), ranks(second)
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale > 0 else None
