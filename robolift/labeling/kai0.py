"""The arithmetic of kai0's labelling script, to the last bit.

Kept for comparison with labels that kai0 made; what we do instead stands in ``advantage``, ``discretize`` and
``population``. Bits depend on the precision that a number passes through, so every function computes in the dtypes that
``discretize_advantage.py`` (kai0 9d93078), or for progress its forerunner ``gt_label.py``, computes in under the NumPy
1.26 that kai0 locks.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from robolift.labeling.returns import Float64Array, FloatArray, IntArray, frames_to_end

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


def kai0_cut(num: int, at: Callable[[int], float], positive_fraction: float, *, single: bool) -> float:
    """Return ``np.percentile(pool, 100 - threshold)``.

    Args:
        num: Size of the pool, at least 1.
        at: The number at a rank of the pool in ascending order.
        positive_fraction: kai0's threshold / 100.
        single: Whether the pool is float32, as the script happens to hold it with stages, or float64, as without.
    """
    # 0.29 * 100 is not 29: kai0 was given a decimal number.
    threshold = round(100.0 * positive_fraction, 9)
    return _percentile(num, at, 100.0 - threshold, single=single)


def kai0_edges(num: int, at: Callable[[int], float], num_slices: int, *, single: bool) -> Float64Array:
    """Return the lower edges of ``n_slices``: the percentiles i * (100 / S), (S,). Arguments as of :func:`kai0_cut`.

    Ties collapse upward: with 80 % of the frames at the minimum, every frame is in the top slice.
    """
    step = 100 / num_slices
    return np.array([_percentile(num, at, step * number, single=single) for number in range(num_slices)])


def _percentile(num: int, at: Callable[[int], float], percent: float, *, single: bool) -> float:
    place = (num - 1) * np.true_divide(percent, 100)
    below = min(int(place), num - 1)
    found = np.array([at(below), at(min(below + 1, num - 1))], np.float64)
    pair: FloatArray = found.astype(np.float32) if single else found
    # NumPy interpolates between the two as it would in the whole pool, to the last bit.
    return float(np.quantile(pair, float(place - below)))
