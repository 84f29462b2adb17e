"""Advantages of all frames at once, from rewards and values or from progress.

A_t says how much better things went over the next N frames (``lookahead``) than was to be expected at t. Every function
works on all episodes in one array, costs O(F) or O(F log T), and never looks across the end of an episode. What it
returns for an episode depends on that episode alone, to the last bit.
"""

from __future__ import annotations

import enum
import math

import numpy as np

from robolift.errors import UsageError
from robolift.labeling.kai0 import kai0_progress_advantage
from robolift.labeling.returns import (
    BoolArray,
    Float64Array,
    FloatArray,
    IntArray,
    check_frames,
    episode_spans,
    frames_to_end,
)

RABC_EPSILON = 1e-6
KAPPA = 0.01
"""Rise of progress above which a frame counts fully in reward-aligned cloning, LeRobot's default."""


class ShortTail(enum.StrEnum):
    """What a progress advantage is where fewer than ``lookahead`` frames are left."""

    DROP = "drop"  # not valid
    SCALE = "scale"  # scaled up to a full lookahead; noise grows alike, up to N-fold
    KAI0_LEGACY = "kai0_legacy"  # as kai0: divisor T - t from progress, last frame 0 and ranked


def check_lookahead(lookahead: int) -> None:
    """Refuse a lookahead below one frame.

    Raises:
        UsageError: If it is.
    """
    if lookahead < 1:
        raise UsageError(f"lookahead is {lookahead}, expected at least 1 frame")


def nstep_advantage(rewards: FloatArray, values: FloatArray, starts: IntArray, *, lookahead: int) -> Float64Array:
    """Return the N-step advantage of RECAP (arXiv 2511.14759), without discount.

        A_t = sum_{k=t}^{min(t+N,T)-1} r_k + V_{t+N} - V_t,   V = 0 at and after T

    By the potential Q_t = sum_{k<t} r_k + V_t, of T + 1 entries an episode, it is Q_{min(t+N,T)} - Q_t. With V = y it
    is 0 everywhere.

    Args:
        rewards: r, (F,).
        values: V, (F,).
        starts: Offsets of the episodes, (E + 1,).
        lookahead: N, in frames.

    Returns:
        A, (F,) float64.

    Raises:
        UsageError: If shapes disagree or ``lookahead`` is below 1.
    """
    check_lookahead(lookahead)
    check_frames(starts, rewards=rewards, values=values)
    advantage = np.empty(len(rewards))
    # Episode by episode, because one sum over all would round each episode by those that lie before it.
    for span in episode_spans(starts):
        length = span.stop - span.start
        potential = np.zeros(length + 1)
        np.cumsum(rewards[span], dtype=np.float64, out=potential[1:])
        potential[:-1] += values[span]
        full = max(length - lookahead, 0)  # frames with a whole lookahead before the end
        found = advantage[span]
        np.subtract(potential[lookahead:length], potential[:full], out=found[:full])
        np.subtract(potential[length], potential[full:length], out=found[full:])
    return advantage


def gae_advantage(rewards: FloatArray, values: FloatArray, starts: IntArray, *, gae_lambda: float) -> Float64Array:
    """Return the generalized advantage estimate (arXiv 1506.02438), without discount.

        A_t = sum_{k=t}^{T-1} lambda^(k-t) d_k,   d_k = r_k + V_{k+1} - V_k,   V_T = 0

    lambda = 1 is the whole return less V_t. Computed by doubling: after step i each frame holds the sum over 2^i
    frames, so there are log2 T passes over the arrays.

    Args:
        rewards: r, (F,).
        values: V, (F,).
        starts: Offsets of the episodes, (E + 1,).
        gae_lambda: Lambda, in (0, 1].

    Returns:
        A, (F,) float64.

    Raises:
        UsageError: If shapes disagree or lambda is out of range.
    """
    if not 0 < gae_lambda <= 1:
        raise UsageError(f"gae_lambda is {gae_lambda}, expected a number in (0, 1]")
    check_frames(starts, rewards=rewards, values=values)
    following = np.append(values[1:].astype(np.float64), 0.0)
    following[starts[1:] - 1] = 0.0
    advantage: Float64Array = rewards + following - values
    remaining = frames_to_end(starts)
    shift, factor = 1, float(gae_lambda)
    while shift <= int(remaining.max(initial=0)) and factor > 0.0:
        advantage[:-shift] += np.where(remaining[:-shift] >= shift, factor * advantage[shift:], 0.0)
        shift, factor = 2 * shift, factor * factor
    return advantage


def progress_advantage(
    progress: FloatArray,
    starts: IntArray,
    *,
    lookahead: int,
    short_tail: ShortTail = ShortTail.SCALE,
) -> tuple[Float64Array, BoolArray]:
    """Return how much progress is made in the next ``lookahead`` frames (kai0, arXiv 2602.09021).

        m = min(t + N, T - 1),   A_t = (p_m - p_t) * N / (m - t)

    ``scale`` is kai0's prediction script before clipping; ``kai0_legacy`` is its labelling script, which divides by
    T - t instead of the true span where t + N >= T, and so gives linear progress a falling advantage.

    Args:
        progress: p, (F,).
        starts: Offsets of the episodes, (E + 1,).
        lookahead: N, in frames.
        short_tail: What happens where m - t < N.

    Returns:
        A, (F,) float64, 0 in the last frame of an episode; and whether A may be ranked, (F,) bool.

    Raises:
        UsageError: If shapes disagree or ``lookahead`` is below 1.
    """
    check_lookahead(lookahead)
    check_frames(starts, progress=progress)
    valid = may_be_ranked(starts, lookahead=lookahead, short_tail=short_tail)
    if short_tail == ShortTail.KAI0_LEGACY:
        return kai0_progress_advantage(progress, starts, lookahead=lookahead).astype(np.float64), valid
    return _scaled_rise(progress, starts, lookahead), valid


def absolute_advantage(
    values: FloatArray,
    starts: IntArray,
    *,
    lookahead: int,
    short_tail: ShortTail = ShortTail.SCALE,
) -> tuple[Float64Array, BoolArray]:
    """Return how much a predicted value rises in the next ``lookahead`` frames: kai0's ``absolute_advantage``.

        m = min(t + N, T - 1),   A_t = clip((v_m - v_t) * N / (m - t), -1, 1)

    kai0's prediction script scales short spans by what they are; ``kai0_legacy`` differs only in that the last frame of
    an episode, which has no span and gets 0, is ranked like the rest.

    Args:
        values: v, (F,): of a two-frame estimator f(0, t), of a single-frame one g(t).
        starts: Offsets of the episodes, (E + 1,).
        lookahead: N, in frames.
        short_tail: Which frames with m - t < N may be ranked.

    Returns:
        A in [-1, 1], (F,) float64, and whether A may be ranked, (F,) bool.

    Raises:
        UsageError: If shapes disagree or ``lookahead`` is below 1.
    """
    check_lookahead(lookahead)
    check_frames(starts, values=values)
    valid = may_be_ranked(starts, lookahead=lookahead, short_tail=short_tail)
    return np.clip(_scaled_rise(values, starts, lookahead), -1.0, 1.0), valid


def may_be_ranked(starts: IntArray, *, lookahead: int, short_tail: ShortTail) -> BoolArray:
    """Return which frames have enough frames after them for their advantage to mean something, (F,).

    Args:
        starts: Offsets of the episodes, (E + 1,).
        lookahead: N, in frames.
        short_tail: ``drop``: a whole lookahead; ``scale``: one frame at least; ``kai0_legacy``: all, as kai0 has it.
    """
    remaining = frames_to_end(starts)
    least = {ShortTail.DROP: lookahead, ShortTail.SCALE: 1, ShortTail.KAI0_LEGACY: 0}[short_tail]
    enough: BoolArray = remaining >= least
    return enough


def _scaled_rise(signal: FloatArray, starts: IntArray, lookahead: int) -> Float64Array:
    """Return (s_m - s_t) * N / (m - t) with m = min(t + N, T - 1), 0 in the last frame, (F,)."""
    span = np.minimum(lookahead, frames_to_end(starts))
    rise = signal[np.arange(len(signal)) + span].astype(np.float64) - signal
    scaled: Float64Array = rise * lookahead / np.maximum(span, 1)
    return scaled


def rabc_weights(progress: FloatArray, starts: IntArray, *, lookahead: int, kappa: float = KAPPA) -> Float64Array:
    """Return the loss weights of reward-aligned behaviour cloning (SARM, arXiv 2509.25358, eq. 8 and 9).

    With the rise of progress r_t = p_{min(t+N,T-1)} - p_t, its mean mu (at least 0) and deviation s over all frames:
    w = 1 if r > kappa; clip((r - (mu - 2s)) / (4s + 1e-6), 0, 1) if 0 <= r <= kappa; 0 if r < 0; 1 where r is not
    known. As LeRobot computes it, less the normalization over a batch, which belongs to the trainer.

    Args:
        progress: p, (F,), NaN where not known.
        starts: Offsets of the episodes, (E + 1,).
        lookahead: N, in frames: the action chunk's length.
        kappa: Rise above which a frame counts fully.

    Returns:
        w in [0, 1], (F,) float64.

    Raises:
        UsageError: If shapes disagree or ``lookahead`` is below 1.
    """
    rise = progress_rise(progress, starts, lookahead=lookahead)
    known = rise[~np.isnan(rise)]
    # fsum is exact, so the weights do not depend on the order of the episodes.
    mean = math.fsum(known) / max(len(known), 1)
    variance = math.fsum((known - mean) ** 2) / max(len(known), 1)
    return rabc_weights_of_rise(rise, mean=mean, variance=variance, kappa=kappa)


def progress_rise(progress: FloatArray, starts: IntArray, *, lookahead: int) -> Float64Array:
    """Return r_t = p_{min(t+N,T-1)} - p_t, (F,) float64, NaN where one of them is.

    Args:
        progress: p, (F,).
        starts: Offsets of the episodes, (E + 1,).
        lookahead: N, in frames.

    Raises:
        UsageError: If shapes disagree or ``lookahead`` is below 1.
    """
    check_lookahead(lookahead)
    check_frames(starts, progress=progress)
    span = np.minimum(lookahead, frames_to_end(starts))
    rise: Float64Array = progress[np.arange(len(progress)) + span].astype(np.float64) - progress
    return rise


def rabc_weights_of_rise(rise: Float64Array, *, mean: float, variance: float, kappa: float) -> Float64Array:
    """Return the weights of :func:`rabc_weights` from r, (F,), and its mean and variance where it is known."""
    deviation = max(math.sqrt(variance), RABC_EPSILON)
    soft = np.clip((rise - (max(mean, 0.0) - 2 * deviation)) / (4 * deviation + RABC_EPSILON), 0.0, 1.0)
    weights = np.where(rise > kappa, 1.0, np.where(rise >= 0, soft, 0.0))
    return np.where(np.isnan(rise), 1.0, weights)
