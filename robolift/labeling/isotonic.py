"""The rising map from a score to a share of successes that fits best (isotonic regression)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from robolift.errors import UsageError
from robolift.labeling.returns import Float64Array, FloatArray


@dataclass(frozen=True, kw_only=True)
class Isotonic:
    """A map that never falls, linear between its knots and flat beyond them.

    Attributes:
        score: Knots, rising strictly, (K,).
        value: The map there, never falling, (K,).
    """

    score: tuple[float, ...]
    value: tuple[float, ...]

    def apply(self, score: FloatArray) -> Float64Array:
        """Return the map of each score, (N,); NaN stays NaN."""
        return np.asarray(np.interp(score, self.score, self.value), dtype=np.float64)

    def to_dict(self) -> dict[str, Any]:
        """Return the map as JSON."""
        return {"score": list(self.score), "value": list(self.value)}

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> Self:
        """Rebuild a map from JSON."""
        return cls(score=tuple(document["score"]), value=tuple(document["value"]))


def fit_isotonic(score: FloatArray, target: FloatArray, weight: FloatArray | None = None) -> Isotonic:
    """Fit the map f that never falls and minimizes sum of w_i (f(x_i) - y_i)^2, by pooling adjacent violators.

    Equal scores are one point with the mean of their targets. The order of the points makes no difference beyond the
    last bits (Ayer et al. 1955; scikit-learn's IsotonicRegression is the same map).

    Args:
        score: x, (N,), at least one.
        target: y, (N,).
        weight: w, (N,), above 0; 1 by default.

    Raises:
        UsageError: If shapes disagree, there is no point, or a number is not finite.
    """
    weights = np.ones(len(score)) if weight is None else weight
    if not (score.shape == target.shape == weights.shape == (len(score),)) or not len(score):
        raise UsageError(f"score {score.shape}, target {target.shape}, weight {weights.shape}: one each a point")
    if not (np.isfinite(score).all() and np.isfinite(target).all() and (weights > 0).all()):
        raise UsageError("scores and targets must be finite and weights above 0")
    knots, place = np.unique(score.astype(np.float64), return_inverse=True)
    mass = np.bincount(place, weights=weights).astype(np.float64)
    mean = np.bincount(place, weights=weights * target) / mass
    means, counts = _pool(mean, mass)
    value = np.repeat(means, counts)
    # Inside a flat piece only its ends are needed.
    bends = np.ones(len(knots), dtype=bool)
    bends[1:-1] = (value[1:-1] != value[:-2]) | (value[1:-1] != value[2:])
    return Isotonic(score=tuple(knots[bends].tolist()), value=tuple(value[bends].tolist()))


def _pool(mean: FloatArray, mass: FloatArray) -> tuple[list[float], list[int]]:
    """Return the means of the pools, rising, and how many points each has."""
    means: list[float] = []
    masses: list[float] = []
    counts: list[int] = []
    for value, weight in zip(mean.tolist(), mass.tolist(), strict=True):
        means.append(value)
        masses.append(weight)
        counts.append(1)
        while len(means) > 1 and means[-2] >= means[-1]:
            total = masses[-2] + masses[-1]
            # Written so that two pools of one value keep it to the last bit.
            pooled = means[-2] + (means[-1] - means[-2]) * (masses[-1] / total)
            means[-2:] = [pooled]
            masses[-2:] = [total]
            counts[-2:] = [counts[-2] + counts[-1]]
    return means, counts
