"""From advantages to labels: a cut in each group, or slices of equal count."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from robolift.errors import DataError, UsageError
from robolift.labeling.kai0 import kai0_label
from robolift.labeling.returns import BoolArray, Float64Array, FloatArray, IntArray


class Tie(enum.StrEnum):
    """What becomes of frames whose advantage equals the cut."""

    AT_LEAST = "at_least"  # all positive, so more than the share may be
    EXACT = "exact"  # round(f * n) positives; among equals the later frames by key
    KAI0_LEGACY = "kai0_legacy"  # all positive, and the cut, slices and constant groups as in kai0's script


@dataclass(frozen=True, kw_only=True)
class Cut:
    """What was decided in one group.

    Attributes:
        group: Its name.
        num_frames: Frames of the population, n.
        cut: Least advantage that is positive; an interpolated quantile under ``at_least``.
        num_ties: Frames of the population whose advantage equals the cut.
        num_positive: Frames of the population at or above the cut (exactly the share asked for under ``exact``).
        requested: Share asked for.
        edges: Lower edges of the slices, empty without slices.
    """

    group: str
    num_frames: int
    cut: float
    num_ties: int
    num_positive: int
    requested: float
    edges: tuple[float, ...] = ()

    @property
    def achieved(self) -> float:
        """Share of the population that lies at or above the cut."""
        return self.num_positive / self.num_frames


@dataclass(frozen=True, kw_only=True)
class Discretized:
    """Labels of the scored frames; elsewhere False and -1."""

    positive: BoolArray
    slices: npt.NDArray[np.int16]
    cuts: tuple[Cut, ...]


def check_positive_fraction(positive_fraction: float) -> None:
    """Refuse a share outside (0, 1).

    Raises:
        UsageError: If it is; the message says what a percentage should have been.
    """
    if not 0 < positive_fraction < 1:
        hint = f"; write {positive_fraction / 100:g} for {positive_fraction:g} %" if 1 < positive_fraction < 100 else ""
        raise UsageError(f"positive_fraction is {positive_fraction:g}, expected a share in (0, 1){hint}")


def quantile(ordered: FloatArray, q: float) -> float:
    """Return the linear quantile of sorted numbers (NumPy's default method), robust where rounding would miscount.

    The n - ceil(q (n-1)) largest of n different numbers lie at or above it: kai0's and pistar's count at q = 1 - f.

    Args:
        ordered: Numbers in ascending order, (n,), n >= 1.
        q: In [0, 1].
    """
    position = q * (len(ordered) - 1)
    whole = round(position)
    # 1 - 0.9 is not 0.1: within rounding of a whole position the number there is meant.
    if abs(position - whole) <= 1e-15 * len(ordered):
        return float(ordered[whole])
    below = int(position)
    low, high = float(ordered[below]), float(ordered[below + 1])
    between = low + (position - below) * (high - low)
    # Between neighbouring floats there is no room: the quantile must still exclude the lower one.
    return between if between > low else high


def discretize(
    advantage: FloatArray,
    *,
    population: BoolArray,
    scored: BoolArray,
    group: IntArray,
    group_names: Sequence[str],
    positive_fraction: float,
    tie: Tie = Tie.AT_LEAST,
    num_slices: int | None = None,
) -> Discretized:
    """Label the scored frames by the distribution of the population, group by group.

    Positive iff A >= cut, with the cut the linear quantile at 1 - f of the population; under ``tie: exact`` exactly
    round(f n) (half to even) of its n frames. A scored frame outside the population is compared with the cut.
    Slices: frame i of n in ascending order lies in slice floor(i S / n) under ``exact``; under ``at_least`` the slices
    are bounded by the quantiles i / S, as kai0 does, where ties collapse upward. ``kai0_legacy`` is the
    script itself, to the last bit (:mod:`robolift.labeling.kai0`): there a constant population is no error.

    Args:
        advantage: A, (F,); under ``kai0_legacy`` its dtype is the precision of the cuts.
        population: Frames that set the cuts, (F,).
        scored: Frames to label, (F,).
        group: Number of each frame's group, (F,), read only where ``population`` or ``scored``.
        group_names: Name of each group.
        positive_fraction: f, in (0, 1).
        tie: What becomes of equals.
        num_slices: S, None for no slices.

    Returns:
        Labels and, in the order of the groups, cuts.

    Raises:
        UsageError: If ``positive_fraction`` or ``num_slices`` is out of range.
        DataError: If an advantage is not a finite number, a group with scored frames has no population, or a
            population has one single value (``kai0_legacy`` labels that one, and ``exact`` a single frame).
    """
    check_positive_fraction(positive_fraction)
    if num_slices is not None and num_slices < 2:
        raise UsageError(f"num_slices is {num_slices}, expected at least 2")
    # Compared in float64 throughout: against float32 a cut would be rounded.
    exact = advantage.astype(np.float64)
    unknown = np.flatnonzero((population | scored) & ~np.isfinite(exact))
    if len(unknown):
        raise DataError(f"{len(unknown)} advantages to rank are not finite numbers", where=f"first at row {unknown[0]}")
    positive = np.zeros(len(exact), dtype=bool)
    slices = np.full(len(exact), -1, dtype=np.int16)
    cuts = []
    for number, rows in _members(group, population | scored):
        name, pool, values = group_names[number], population[rows], exact[rows]
        # One frame has nobody to be ranked against: round(f) positives of it is none.
        alone = tie == Tie.EXACT and pool.sum() == 1
        _check_pool(values[pool], name, constant=alone or tie == Tie.KAI0_LEGACY)
        if tie == Tie.KAI0_LEGACY:
            ranked = kai0_label(advantage[rows], pool, positive_fraction, num_slices)
        else:
            ranked = _rank(values, pool, positive_fraction, tie, num_slices)
        above, bins, cut, edges = ranked
        positive[rows], slices[rows] = above & scored[rows], np.where(scored[rows], bins, -1)
        cuts.append(
            Cut(
                group=name,
                num_frames=int(pool.sum()),
                cut=cut,
                num_ties=int((values[pool] == cut).sum()),
                num_positive=int(above[pool].sum()),
                requested=positive_fraction,
                edges=tuple(edges.tolist()),
            )
        )
    return Discretized(positive=positive, slices=slices, cuts=tuple(cuts))


def _members(group: IntArray, wanted: BoolArray) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
    """Yield each group's number and its wanted rows in ascending order."""
    rows = np.flatnonzero(wanted)
    rows = rows[np.argsort(group[rows], kind="stable")]
    numbers, first = np.unique(group[rows], return_index=True)
    yield from zip(numbers.tolist(), np.split(rows, first[1:]), strict=True)


def _check_pool(pool: Float64Array, name: str, *, constant: bool) -> None:
    if not len(pool):
        raise DataError(
            "there are frames to label and no frame to set the cut",
            where=f"group {name!r}",
            expected="at least two frames of the population with different advantages",
            mend="choose a wider population or coarser groups, or add rollouts",
        )
    if pool.min() == pool.max() and not constant:
        raise DataError(
            f"all {len(pool)} advantages of the population are {pool[0]:g}",
            where=f"group {name!r}",
            expected="advantages that differ, or a cut means nothing",
            mend="check the values or the column they come from, or choose coarser groups",
        )


def _rank(
    values: Float64Array, pool: BoolArray, positive_fraction: float, tie: Tie, num_slices: int | None
) -> tuple[BoolArray, npt.NDArray[np.int16], float, Float64Array]:
    """Return who of one group is positive and in which slice, the cut, and the lower edges of the slices."""
    order = np.flatnonzero(pool)[np.argsort(values[pool], kind="stable")]
    ordered, place = values[order], np.arange(len(order))
    cut, num_positive = _cut(ordered, positive_fraction, tie)
    positive: BoolArray = values >= cut
    if tie == Tie.EXACT:
        positive[order] = place >= len(order) - num_positive
    if num_slices is None:
        return positive, np.full(len(values), -1, np.int16), cut, np.empty(0)
    edges = _edges(ordered, num_slices, tie)
    slices = np.maximum(np.searchsorted(edges, values, side="right") - 1, 0).astype(np.int16)
    if tie == Tie.EXACT:
        slices[order] = place * num_slices // len(order)
    return positive, slices, cut, edges


def _cut(ordered: Float64Array, positive_fraction: float, tie: Tie) -> tuple[float, int]:
    """Return the cut and how many frames of the population are at or above it."""
    if tie == Tie.EXACT:
        num_positive = round(positive_fraction * len(ordered))
        # With no positives the cut is out of reach, for frames outside the population too.
        return float(ordered[len(ordered) - num_positive]) if num_positive else np.inf, num_positive
    cut = quantile(ordered, 1 - positive_fraction)
    return cut, len(ordered) - int(np.searchsorted(ordered, cut, side="left"))


def _edges(ordered: Float64Array, num_slices: int, tie: Tie) -> Float64Array:
    """Return the lowest advantage of each slice, (S,)."""
    if tie == Tie.EXACT:
        first = -(-np.arange(num_slices) * len(ordered) // num_slices)
        return np.append(ordered, np.inf)[first]
    return np.array([quantile(ordered, number / num_slices) for number in range(num_slices)])
