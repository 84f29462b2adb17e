"""Affine normalisation of states, features and actions, over the dimensions that the data really has.

Nothing is padded before it is normalised: kai0 normalises padding with statistics of zero and so trains 18 of its 32
action dimensions towards -1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Method = Literal["mean_std", "quantile"]
SMALLEST_SCALE = 1e-6
"""Below this a dimension is constant; it is shifted and not scaled, so that rounding errors aren't blown up."""


@dataclass(frozen=True)
class Normalizer:
    """x -> (x - offset) / scale for each dimension.

    Attributes:
        offset: (D,) float32, in the data's units.
        scale: (D,) float32, positive, in the data's units.
    """

    offset: np.ndarray
    scale: np.ndarray

    @classmethod
    def fit(cls, data: np.ndarray, method: Method) -> Normalizer:
        """Measure ``data``.

        Args:
            data: (N, D), N >= 1.
            method: ``mean_std`` gives mean 0 and deviation 1; ``quantile`` maps the 1 % and 99 % quantiles to -1 and 1
                (as pi0.5 does).
        """
        wide = np.asarray(data, np.float64)
        if method == "mean_std":
            return cls.scaled(wide.mean(0), wide.std(0))
        return cls.between(*np.quantile(wide, [0.01, 0.99], axis=0))

    @classmethod
    def between(cls, low: np.ndarray, high: np.ndarray) -> Normalizer:
        """Return what maps ``low`` to -1 and ``high`` to 1; both (D,) float64."""
        return cls.scaled((low + high) / 2, (high - low) / 2)

    @classmethod
    def scaled(cls, offset: np.ndarray, scale: np.ndarray) -> Normalizer:
        """Return what maps ``offset`` to 0 and ``offset + scale`` to 1; both (D,) float64, a scale of 0 counts as 1."""
        scale = np.where(scale < SMALLEST_SCALE, 1.0, scale)
        return cls(offset.astype(np.float32), scale.astype(np.float32))

    def apply(self, data: np.ndarray) -> np.ndarray:
        """Return (..., D) float32 in normalised units."""
        return np.asarray((data - self.offset) / self.scale, np.float32)

    def invert(self, data: np.ndarray) -> np.ndarray:
        """Return (..., D) float32 in the data's units."""
        return np.asarray(data * self.scale + self.offset, np.float32)

    def to_dict(self) -> dict[str, list[float]]:
        """Return it ready for JSON; float32 values survive the round trip exactly."""
        return {"offset": self.offset.tolist(), "scale": self.scale.tolist()}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Normalizer:
        """Return what :meth:`to_dict` wrote."""
        return cls(np.asarray(document["offset"], np.float32), np.asarray(document["scale"], np.float32))
