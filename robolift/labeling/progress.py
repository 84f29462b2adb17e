"""Progress of every frame from the few moments a labeller was asked about."""

from __future__ import annotations

import numpy as np

from robolift.errors import UsageError
from robolift.labeling.returns import Float64Array, FloatArray, IntArray, check_starts, episode_of_frame


def interpolate_anchors(starts: IntArray, episode: IntArray, frame: IntArray, value: FloatArray) -> Float64Array:
    """Return a value for every frame: linear between the anchors of its episode, held before and after them.

        v_t = v_a + (v_b - v_a) * (t - a) / (b - a)    with a <= t < b the anchors around t

    An anchor without a value (NaN) counts as none. What an episode gets depends on its own anchors alone, and lies
    between the two around each frame: rising anchors give rising values, to the last bit.

    Args:
        starts: Offsets of the episodes, (E + 1,).
        episode: Position of each anchor's episode, (A,).
        frame: Frame in its episode that each anchor speaks of, (A,); (episode, frame) sorted, none twice.
        value: What it says, (A,), in any unit.

    Returns:
        (F,) float64, NaN throughout an episode without anchors.

    Raises:
        UsageError: If shapes disagree, or anchors are not sorted or lie outside their episodes.
    """
    check_starts(starts, int(starts[-1]))
    rows = anchor_rows(starts, episode, frame)
    if value.shape != rows.shape:
        raise UsageError(f"value has shape {value.shape}, expected {rows.shape}")
    known = ~np.isnan(value)
    owner, rows, values = episode[known], rows[known], value[known].astype(np.float64)
    if not len(rows):
        return np.full(int(starts[-1]), np.nan)
    frames, own = np.arange(int(starts[-1])), episode_of_frame(starts)
    after = np.searchsorted(rows, frames, side="right")
    left, right = np.maximum(after - 1, 0), np.minimum(after, len(rows) - 1)
    left_is_own = (after > 0) & (owner[left] == own)
    right_is_own = (after < len(rows)) & (owner[right] == own)
    # Where one side has no anchor, the other's value is held.
    left, right = np.where(left_is_own, left, right), np.where(right_is_own, right, left)
    share = (frames - rows[left]) / np.maximum(rows[right] - rows[left], 1)
    first, last = values[left], values[right]
    between = first + (last - first) * share
    return np.where(left_is_own | right_is_own, between, np.nan)


def anchor_rows(starts: IntArray, episode: IntArray, frame: IntArray) -> IntArray:
    """Return the row of each anchor among all frames, (A,).

    Args:
        starts: Offsets of the episodes, (E + 1,).
        episode: Position of each anchor's episode, (A,).
        frame: Its frame, (A,).

    Raises:
        UsageError: If anchors are not sorted, stand twice, or lie outside their episodes.
    """
    if episode.shape != frame.shape or episode.ndim != 1:
        raise UsageError(f"episode {episode.shape} and frame {frame.shape} must be one number an anchor")
    inside = (episode >= 0) & (episode < len(starts) - 1)
    lengths = np.diff(starts)[np.where(inside, episode, 0)]
    wrong = ~(inside & (frame >= 0) & (frame < lengths))
    if wrong.any():
        at = int(wrong.argmax())
        raise UsageError(f"anchor at episode {episode[at]}, frame {frame[at]}: there is no such frame")
    rows: IntArray = starts[episode] + frame
    if (np.diff(rows) <= 0).any():
        raise UsageError("anchors must be sorted by episode and frame, each once")
    return rows
