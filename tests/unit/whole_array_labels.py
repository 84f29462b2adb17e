"""What labels must be, worked out from whole arrays: the plain way, which needs all frames in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from robolift.errors import DataError
from robolift.labeling.cut_rule import Tie
from robolift.labeling.discretize import Cut, Discretized
from robolift.labeling.returns import BoolArray, Float64Array, FloatArray, IntArray


def label_whole(
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
    """Label the scored frames by sorting the population of each group; the dtype is kai0's precision."""
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
    if len(rows):
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


def kai0_cut(pool: FloatArray, positive_fraction: float) -> float:
    """Return ``np.percentile(pool, 100 - threshold)``, in the dtype of ``pool``; 0 for an empty pool.

    Args:
        pool: Advantages, (n,): float64 without stages, float32 with them, as the script happens to hold them.
        positive_fraction: kai0's threshold / 100.
    """
    # 0.29 * 100 is not 29: kai0 was given a decimal number.
    threshold = round(100.0 * positive_fraction, 9)
    return float(np.percentile(pool, 100.0 - threshold)) if len(pool) else 0.0


def kai0_edges(pool: FloatArray, num_slices: int) -> Float64Array:
    """Return the lower edges of ``n_slices``: the percentiles i * (100 / S), (S,); zeros for an empty pool."""
    if not len(pool):
        return np.full(num_slices, 0.0)
    step = 100 / num_slices
    return np.array([float(np.percentile(pool, step * number)) for number in range(num_slices)])


def kai0_label(
    advantage: FloatArray, pool: BoolArray, positive_fraction: float, num_slices: int | None
) -> tuple[BoolArray, npt.NDArray[np.int16], float, Float64Array]:
    """Return who is positive (A >= cut) and the slice of each frame of one stage, the cut and the lower edges.

    Ties collapse upward: with 80 % of the frames at the minimum, every frame is positive and in the top slice.

    Args:
        advantage: A, (n,).
        pool: Frames that set the cut, (n,).
        positive_fraction: kai0's threshold / 100.
        num_slices: S, None for no slices (slice -1).
    """
    cut = kai0_cut(advantage[pool], positive_fraction)
    positive: BoolArray = advantage.astype(np.float64) >= cut
    if num_slices is None:
        return positive, np.full(len(advantage), -1, np.int16), cut, np.empty(0)
    edges = kai0_edges(advantage[pool], num_slices)
    slices = np.maximum(np.searchsorted(edges, advantage.astype(np.float64), side="right") - 1, 0)
    return positive, slices.astype(np.int16), cut, edges
