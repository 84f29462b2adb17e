"""How far annotators agree beyond chance: Krippendorff's alpha."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from robolift.errors import UsageError

Level = Literal["nominal", "ordinal", "interval"]


def krippendorff_alpha(values: npt.ArrayLike, *, level: Level) -> float | None:
    """Return Krippendorff's alpha: 1 is perfect agreement, 0 is what chance gives.

    alpha = 1 - D_o / D_e, with D_o = sum_ck o_ck d²(c, k) and D_e = sum_ck n_c n_k d²(c, k) / (n - 1), where o is the
    coincidence matrix over all pairs of values in a unit, each pair weighted by 1 / (m_u - 1), n_c its margins and n
    their sum. d² is 0 or 1 (nominal), (c - k)² (interval), or (sum of n_g for g from c to k, less (n_c + n_k) / 2)²
    (ordinal).

    Source: K. Krippendorff, "Computing Krippendorff's Alpha-Reliability", 2011.

    Args:
        values: (annotators, units), NaN where one said nothing about a unit.
        level: How values compare.

    Returns:
        None where alpha is not defined: no unit has two values, or all values are the same.

    Raises:
        UsageError: If ``values`` has another shape.
    """
    table = np.asarray(values, np.float64)
    if table.ndim != 2:
        raise UsageError(f"values for alpha have shape {table.shape}, expected (annotators, units)")
    known = ~np.isnan(table)
    table, known = table[:, known.sum(axis=0) > 1], known[:, known.sum(axis=0) > 1]
    if table.size == 0:
        return None
    categories, codes = np.unique(table[known], return_inverse=True)
    if len(categories) < 2:
        return None
    units = np.nonzero(known)[1]
    counts = np.zeros((table.shape[1], len(categories)))
    np.add.at(counts, (units, codes), 1)
    weights = 1 / (counts.sum(axis=1) - 1)
    coincidences = (counts * weights[:, None]).T @ counts - np.diag((counts * weights[:, None]).sum(axis=0))
    margins = coincidences.sum(axis=1)
    distance = _distances(categories, margins, level)
    expected = (np.outer(margins, margins) * distance).sum() / (margins.sum() - 1)
    return float(1 - (coincidences * distance).sum() / expected)


def _distances(categories: np.ndarray, margins: np.ndarray, level: Level) -> np.ndarray:
    if level == "nominal":
        return 1.0 - np.eye(len(categories))
    if level == "interval":
        return np.asarray((categories[:, None] - categories[None, :]) ** 2)
    middles = np.cumsum(margins) - margins / 2
    return np.asarray((middles[:, None] - middles[None, :]) ** 2)
