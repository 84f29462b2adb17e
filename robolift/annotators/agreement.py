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
    found = Coincidences()
    found.add(values)
    return found.alpha(level=level)


class Coincidences:
    """The coincidence matrix of :func:`krippendorff_alpha`, added up over parts of the units."""

    def __init__(self) -> None:
        """Begin without units."""
        self._values = np.zeros(0)
        self._matrix = np.zeros((0, 0))

    def add(self, values: npt.ArrayLike) -> None:
        """Add units.

        Args:
            values: (annotators, units), NaN where one said nothing about a unit; other annotators than before at will.

        Raises:
            UsageError: If ``values`` has another shape.
        """
        table = np.asarray(values, np.float64)
        if table.ndim != 2:
            raise UsageError(f"values for alpha have shape {table.shape}, expected (annotators, units)")
        several = (~np.isnan(table)).sum(axis=0) > 1
        table = table[:, several]
        known = ~np.isnan(table)
        categories, codes = np.unique(table[known], return_inverse=True)
        counts = np.zeros((table.shape[1], len(categories)))
        np.add.at(counts, (np.nonzero(known)[1], codes), 1)
        weighted = counts / (counts.sum(axis=1) - 1)[:, None]
        self._merge(categories, weighted.T @ counts - np.diag(weighted.sum(axis=0)))

    def _merge(self, categories: np.ndarray, matrix: np.ndarray) -> None:
        values = np.union1d(self._values, categories)
        total = np.zeros((len(values), len(values)))
        for some, part in ((self._values, self._matrix), (categories, matrix)):
            places = np.searchsorted(values, some)
            total[np.ix_(places, places)] += part
        self._values, self._matrix = values, total

    def alpha(self, *, level: Level) -> float | None:
        """Return Krippendorff's alpha over all units, None where it is not defined."""
        if len(self._values) < 2:
            return None
        margins = self._matrix.sum(axis=1)
        distance = _distances(self._values, margins, level)
        expected = (np.outer(margins, margins) * distance).sum() / (margins.sum() - 1)
        return float(1 - (self._matrix * distance).sum() / expected)


def _distances(categories: np.ndarray, margins: np.ndarray, level: Level) -> np.ndarray:
    if level == "nominal":
        return 1.0 - np.eye(len(categories))
    if level == "interval":
        return np.asarray((categories[:, None] - categories[None, :]) ** 2)
    middles = np.cumsum(margins) - margins / 2
    return np.asarray((middles[:, None] - middles[None, :]) ** 2)
