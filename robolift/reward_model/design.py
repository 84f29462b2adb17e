"""What a reward model sees of a clip: standardized features, and its embedding or the embedding's main directions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from robolift.data.principal import principal_directions
from robolift.errors import DataError, UsageError

EMBEDDING = "embedding"
FAMILIES: Mapping[str, tuple[str, ...]] = {
    "hands": ("hands", "hand_motion"),
    "motion": ("motion_mean", "motion_var", "jerk", "shake"),
}
"""Names that stand for several fields when something is dropped."""
FLAT = 1e-9
"""A column whose spread is below this share of its size is constant; it is left at 0."""


def kept_fields(fields: Sequence[str], drop: Sequence[str]) -> tuple[tuple[str, ...], bool]:
    """Return the fields that are left, and whether the embedding is.

    Raises:
        UsageError: If a dropped name is none, so that an ablation would be none.
    """
    known = {*fields, *FAMILIES, EMBEDDING}
    unknown = sorted(set(drop) - known)
    if unknown:
        raise UsageError(f"drop names {', '.join(unknown)}; expected names of {', '.join(sorted(known))}")
    gone = {field for name in drop for field in FAMILIES.get(name, (name,))}
    return tuple(field for field in fields if field not in gone), EMBEDDING not in drop


@dataclass(frozen=True, kw_only=True, eq=False)
class Design:
    """Turns features into the columns of a model: scalars, then the embedding.

    Attributes:
        fields: Scalar features.
        mean: (scalars + directions,) what is subtracted from each column.
        std: (scalars + directions,) what it is then divided by.
        centre: (width,) subtracted from an embedding; width 0 without one.
        directions: (width, directions) that it is then projected on; the identity where it is taken whole.
    """

    fields: tuple[str, ...]
    mean: np.ndarray
    std: np.ndarray
    centre: np.ndarray
    directions: np.ndarray

    @property
    def width(self) -> int:
        """Columns of the design."""
        return len(self.mean)

    @classmethod
    def fit(
        cls,
        columns: Mapping[str, np.ndarray],
        embedding: np.ndarray,
        *,
        rows: np.ndarray,
        fields: Sequence[str],
        components: int | None,
    ) -> Design:
        """Measure the clips ``rows``; nothing is learned from the others.

        Args:
            columns: Features by name, each (n,).
            embedding: (n, width); width 0 to leave it out.
            rows: (n,) bool, the clips to measure.
            fields: Features to take, in this order.
            components: Principal components of the embedding; None takes it whole.

        Raises:
            UsageError: If no column is left.
        """
        known = embedding[rows]
        centre = known.mean(axis=0)
        directions = (
            np.eye(embedding.shape[1]) if components is None else principal_directions(known - centre, components)
        )
        raw = _raw(columns, fields, embedding, centre, directions)
        if raw.shape[1] == 0:
            raise UsageError("the reward model would see nothing: every field and the embedding are dropped")
        mean, std = raw[rows].mean(axis=0), raw[rows].std(axis=0)
        flat = std <= FLAT * np.maximum(1.0, np.abs(mean))
        return cls(
            fields=tuple(fields),
            mean=mean,
            std=np.where(flat, np.inf, std),
            centre=centre,
            directions=directions,
        )

    def apply(self, columns: Mapping[str, np.ndarray], embedding: np.ndarray) -> np.ndarray:
        """Return the design of clips, (n, columns) float64.

        Raises:
            DataError: If embeddings have another width than those the model was trained on.
        """
        if len(self.centre) and embedding.shape[1] != len(self.centre):
            raise DataError(
                f"embeddings have {embedding.shape[1]} numbers",
                where="features.parquet",
                expected=f"{len(self.centre)}, as in training",
                mend="extract features with the encoder that the model was trained with",
            )
        used = embedding if len(self.centre) else embedding[:, :0]
        raw = _raw(columns, self.fields, used, self.centre, self.directions)
        return np.asarray((raw - self.mean) / self.std)

    def tensors(self) -> dict[str, np.ndarray]:
        """Return the numbers to store."""
        return {f"design.{name}": getattr(self, name) for name in ("mean", "std", "centre", "directions")}

    @classmethod
    def load(cls, fields: Sequence[str], tensors: Mapping[str, Any]) -> Design:
        """Return a design from what :meth:`tensors` gave; raises KeyError if something is missing."""
        stored = {name: tensors[f"design.{name}"] for name in ("mean", "std", "centre", "directions")}
        return cls(fields=tuple(fields), **stored)


def _raw(
    columns: Mapping[str, np.ndarray],
    fields: Sequence[str],
    embedding: np.ndarray,
    centre: np.ndarray,
    directions: np.ndarray,
) -> np.ndarray:
    scalars = [columns[name] for name in fields]
    return np.column_stack([*scalars, (embedding - centre) @ directions])
