"""The arithmetic of kai0's labelling script, to the last bit.

Kept for comparison with labels that kai0 made; what we do instead stands in ``advantage``, ``discretize`` and
``population``. Bits depend on the precision that a number passes through, so every function computes in the dtypes that
``discretize_advantage.py`` (kai0 9d93078), or for progress its forerunner ``gt_label.py``, computes in under the NumPy
1.26 that kai0 locks.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from robolift.labeling.returns import BoolArray, Float64Array, FloatArray, IntArray, frames_to_end

EMPTY_CUT = 0.0
"""Cut that kai0 gives a stage without frames."""


def kai0_progress_advantage(progress: FloatArray, starts: IntArray, *, lookahead: int) -> FloatArray:
    """Return the rise of progress over the lookahead, with kai0's divisor at the end of an episode.

    p_{t+N} - p_t where t + N < T, else (p_{T-1} - p_t) / (T - t) * N: the span is T - 1 - t, so linear progress falls
    towards the end, to 0 in the last frame. Computed in the dtype of ``progress``.

    Args:
        progress: p, (F,).
        starts: Offsets of the episodes, (E + 1,).
        lookahead: N, in frames.
    """
    dtype = progress.dtype.type
    remaining = frames_to_end(starts)
    rise: FloatArray = progress[np.arange(len(progress)) + np.minimum(lookahead, remaining)] - progress
    divisor = (remaining + 1).astype(progress.dtype)
    found: FloatArray = np.where(remaining >= lookahead, rise, rise / divisor * dtype(lookahead))
    return found


def kai0_stages(progress: FloatArray, num_stages: int) -> npt.NDArray[np.int64]:
    """Return the stage of each frame: int(p / (1 / S)), at most S - 1, divided as float64 whatever ``progress`` is.

    Frames on an edge depend on the dtype of ``progress``: 0.3 of ten stages is in stage 2 as float64 and in stage 3 as
    float32. (From NumPy 2 on a float32 would be divided as float32, and 0.7 of ten stages move from stage 6 to 7.)

    Args:
        progress: Stage progress, (F,), without NaN; at or below -1 / S kai0 has no stage, here it is the first.
        num_stages: S, at least 1.
    """
    return np.clip((progress.astype(np.float64) / (1.0 / num_stages)).astype(np.int64), 0, num_stages - 1)


def kai0_cut(pool: FloatArray, positive_fraction: float) -> float:
    """Return ``np.percentile(pool, 100 - threshold)``, in the dtype of ``pool``; 0 for an empty pool.

    Args:
        pool: Advantages, (n,): float64 without stages, float32 with them, as the script happens to hold them.
        positive_fraction: kai0's threshold / 100.
    """
    # 0.29 * 100 is not 29: kai0 was given a decimal number.
    threshold = round(100.0 * positive_fraction, 9)
    return float(np.percentile(pool, 100.0 - threshold)) if len(pool) else EMPTY_CUT


def kai0_edges(pool: FloatArray, num_slices: int) -> Float64Array:
    """Return the lower edges of ``n_slices``: the percentiles i * (100 / S), (S,); zeros for an empty pool."""
    if not len(pool):
        return np.full(num_slices, EMPTY_CUT)
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
