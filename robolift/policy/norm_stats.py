"""Norm statistics as files: what a state and an action usually are, in openpi's layout, checked before they are used.

``norm_stats.json`` is what openpi's ``shared/normalize.py`` reads and writes:
``{"norm_stats": {"state": {"mean": [...], "std": [...], "q01": [...], "q99": [...]}, "actions": {...}}}``. It has the
data's own dimensions and no padding: openpi pads after it has normalised. (kai0's fork pads before, so it trains
padding towards -1 and wants 32 numbers.)
``columns.json`` beside it says what was measured, so that numbers of other columns are never taken for these.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from robolift import storage
from robolift.data.dataset import Dataset
from robolift.data.exact_statistics import ExactStatistics, FloatArray
from robolift.errors import DataError, UsageError
from robolift.manifest import Manifest
from robolift.policy.normalize import SMALLEST_SCALE, Method, Normalizer

ACTION = "action"
NORM_STATS_FILE = "norm_stats.json"
COLUMNS_FILE = "columns.json"
QUANTILES = (0.01, 0.99)


def join(parts: Sequence[FloatArray]) -> FloatArray:
    """Return vectors one after the other, (0,) where there are none."""
    return np.concatenate([np.zeros(0), *parts])


@dataclass(frozen=True, kw_only=True)
class VectorStats:
    """Statistics of a vector; every array is (D,) float64, in the data's units.

    Attributes:
        mean: Arithmetic mean.
        std: Population standard deviation.
        q01: 1 % quantile.
        q99: 99 % quantile.
    """

    mean: FloatArray
    std: FloatArray
    q01: FloatArray
    q99: FloatArray

    @classmethod
    def joined(cls, parts: Sequence[ExactStatistics]) -> VectorStats:
        """Return the statistics of several columns side by side, measured at :data:`QUANTILES`."""
        q01, q99 = (join([part.quantiles[k] for part in parts]) for k in range(len(QUANTILES)))
        mean, std = (join([getattr(part, name) for part in parts]) for name in ("mean", "std"))
        return cls(mean=mean, std=std, q01=q01, q99=q99)

    def normalizer(self, method: Method) -> Normalizer:
        """Return what ``Normalizer.fit`` would, on what was measured here."""
        return (
            Normalizer.scaled(self.mean, self.std) if method == "mean_std" else Normalizer.between(self.q01, self.q99)
        )

    def unscaled(self, method: Method) -> list[int]:
        """Return the dimensions that a normaliser only shifts, because their spread is 0."""
        spread = self.std if method == "mean_std" else (self.q99 - self.q01) / 2
        return [int(dimension) for dimension in np.flatnonzero(spread < SMALLEST_SCALE)]

    def to_dict(self) -> dict[str, list[float]]:
        """Return it ready for JSON."""
        return {name: array.tolist() for name, array in vars(self).items()}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> VectorStats:
        """Return what :meth:`to_dict` wrote.

        Raises:
            KeyError: If a statistic is missing.
            ValueError: If one is not a list of finite numbers, or they differ in length.
        """
        arrays = {name: np.asarray(document[name], np.float64) for name in cls.__dataclass_fields__}
        if len({array.shape for array in arrays.values()}) > 1 or arrays["mean"].ndim != 1:
            raise ValueError("lists of different lengths")
        if not all(np.isfinite(array).all() for array in arrays.values()):
            raise ValueError("a number is not finite")
        return cls(**arrays)


@dataclass(frozen=True, kw_only=True)
class NormStats:
    """Statistics of what a policy reads and makes.

    Attributes:
        state: Of the state columns, joined in order.
        actions: Of the action.
    """

    state: VectorStats
    actions: VectorStats

    def to_dict(self) -> dict[str, Any]:
        """Return openpi's document."""
        return {"norm_stats": {"state": self.state.to_dict(), "actions": self.actions.to_dict()}}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> NormStats:
        """Return what :meth:`to_dict` wrote; raises as :meth:`VectorStats.from_dict`."""
        found = document["norm_stats"]
        return cls(state=VectorStats.from_dict(found["state"]), actions=VectorStats.from_dict(found["actions"]))


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column that is normalised.

    Attributes:
        name: In the dataset.
        dim: Numbers a frame.
        names: What info.json calls these numbers, None where it doesn't.
    """

    name: str
    dim: int
    names: Any = None

    def __str__(self) -> str:
        return f"{self.name} with {self.dim} numbers{'' if self.names is None else f' {self.names}'}"

    def agrees(self, other: Column) -> bool:
        """Tell whether statistics of one serve the other; names count where both have some."""
        unnamed = self.names is None or other.names is None
        return (self.name, self.dim) == (other.name, other.dim) and (unnamed or self.names == other.names)


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The columns behind norm statistics.

    Attributes:
        state: Joined in this order.
        actions: The action column.
    """

    state: tuple[Column, ...]
    actions: tuple[Column, ...]

    @classmethod
    def of(cls, dataset: Dataset, state_keys: Sequence[str]) -> Columns:
        """Describe a dataset's columns.

        Raises:
            DataError: If the dataset has no such column, or it does not hold numbers.
        """
        return cls(
            state=tuple(_describe(dataset, key) for key in state_keys),
            actions=(_describe(dataset, ACTION),),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Columns:
        """Return what :meth:`to_dict` wrote."""
        parts = {part: tuple(Column(**column) for column in document[part]) for part in ("state", "actions")}
        return cls(**parts)


def _describe(dataset: Dataset, name: str) -> Column:
    feature = dataset.features.get(name)
    if feature is None or feature["dtype"] in ("video", "image", "string"):
        raise DataError(
            f"no column {name} in the dataset" if feature is None else f"column {name} holds {feature['dtype']}",
            where=", ".join(source.uri for source in dataset.sources),
            expected="a column of numbers in each frame",
            mend="name the state columns in state_keys",
        )
    return Column(name=name, dim=math.prod(feature["shape"]), names=feature.get("names"))


def load(given: Manifest, dataset: Dataset, state_keys: Sequence[str]) -> NormStats:
    """Load the output of ``compute_norm_stats`` for a policy that reads ``state_keys`` of ``dataset``.

    The statistics may come from another dataset, as a policy that is trained further keeps those it began with; its
    columns must be the same.

    Raises:
        UsageError: If they were measured on other columns.
        DataError: If a file of it is damaged.
    """
    where = given.file(COLUMNS_FILE)
    try:
        measured = Columns.from_dict(storage.read_json(where))
        where = given.file(NORM_STATS_FILE)
        stats = NormStats.from_dict(storage.read_json(where))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"not norm statistics: {error!r}", where=where, mend="run compute_norm_stats again") from error
    wanted = Columns.of(dataset, state_keys)
    for part in ("state", "actions"):
        theirs, ours = getattr(measured, part), getattr(wanted, part)
        if len(theirs) != len(ours) or not all(a.agrees(b) for a, b in zip(theirs, ours, strict=True)):
            raise UsageError(
                f"norm_stats were measured on {part} {_text(theirs)}; expected {_text(ours)}\n"
                f"  where: {given.uri}\n"
                "  mend: run compute_norm_stats with the state_keys of train_policy, on a dataset with these columns"
            )
        dims = sum(column.dim for column in ours)
        if (found := len(getattr(stats, part).mean)) != dims:
            raise DataError(
                f"{part} has {found} numbers", where=where, expected=f"{dims}", mend="run compute_norm_stats again"
            )
    return stats


def _text(columns: Sequence[Column]) -> str:
    return ", ".join(map(str, columns)) or "none"
