"""Value targets and rewards of episodes that ended in success or failure.

Notation of DESIGN and of the code: T frames in an episode, t = 0..T-1; y is the value target, r the reward.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from robolift.errors import UsageError

FloatArray = npt.NDArray[np.floating]
Float64Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.integer]
BoolArray = npt.NDArray[np.bool_]


class Target(enum.StrEnum):
    """How a target is scaled."""

    TASK_MAX = "task_max"  # by the longest episode of the task: slow successes are worth less
    PER_EPISODE = "per_episode"  # by the episode's own length, as pistar does: all successes start equal


def check_starts(starts: IntArray, num_frames: int) -> None:
    """Check that ``starts`` cuts ``num_frames`` frames into episodes of one frame or more.

    Args:
        starts: Offsets, (E + 1,).
        num_frames: Number of frames F.

    Raises:
        UsageError: If it does not.
    """
    bounded = starts.ndim == 1 and len(starts) >= 2 and starts[0] == 0 and starts[-1] == num_frames
    if not bounded or (np.diff(starts) < 1).any():
        raise UsageError(f"starts must rise from 0 to {num_frames}, at least one frame an episode; got {starts}")


def check_frames(starts: IntArray, **arrays: npt.NDArray[np.generic]) -> None:
    """Check that ``arrays`` are per-frame, of one shape (F,), and that ``starts`` cuts them into episodes.

    Raises:
        UsageError: Naming the array that does not fit.
    """
    for name, array in arrays.items():
        if array.shape != (starts[-1],):
            raise UsageError(f"{name} has shape {array.shape}, expected ({starts[-1]},)")
    check_starts(starts, int(starts[-1]))


def episode_of_frame(starts: IntArray) -> npt.NDArray[np.int64]:
    """Return the position of the episode of each frame, (F,)."""
    return np.repeat(np.arange(len(starts) - 1), np.diff(starts))


def frames_to_end(starts: IntArray) -> npt.NDArray[np.int64]:
    """Return T - 1 - t for each frame, (F,): how many frames of its episode follow it."""
    ends: npt.NDArray[np.int64] = np.repeat(starts[1:], np.diff(starts)).astype(np.int64)
    return ends - 1 - np.arange(len(ends))


def episode_spans(starts: IntArray) -> Iterator[slice]:
    """Yield the rows of each episode."""
    for begin, end in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        yield slice(begin, end)


def value_targets(
    starts: IntArray,
    task: IntArray,
    failed: BoolArray,
    *,
    target: Target = Target.TASK_MAX,
    failure_cost: float = 1.0,
    longest: IntArray | None = None,
) -> npt.NDArray[np.float32]:
    r"""Return the value target of each frame, in [-1, 0].

    ``task_max``: with Tmax the longest episode of the task and C = failure_cost * Tmax,

        y_t = (-(T-1-t) - C * [failed]) / (Tmax + C)

    which is the return of RECAP (arXiv 2511.14759: -1 a frame, -C at the end of a failure) scaled by its range, with
    Evo-RL's choice of C. A success ends at 0, and with failure_cost >= 1 no failure lies above a success of its task.
    ``per_episode`` (pistar): a success is -(T-1-t) / T, a failure -1 throughout.

    Args:
        starts: Offsets of the episodes, (E + 1,).
        task: Number of each episode's task, (E,).
        failed: Whether each episode failed, (E,).
        target: Which of the two.
        failure_cost: C in units of Tmax, zero or more; ``per_episode`` has no use for it.
        longest: Tmax by task number, where these are not all episodes; by default of these, :func:`longest_episode`.

    Raises:
        UsageError: If shapes disagree or ``failure_cost`` is negative.
    """
    check_starts(starts, int(starts[-1]))
    lengths = np.diff(starts)
    if task.shape != lengths.shape or failed.shape != lengths.shape:
        raise UsageError(f"task {task.shape} and failed {failed.shape} must be ({len(lengths)},)")
    if not failure_cost >= 0:
        raise UsageError(f"failure_cost is {failure_cost}, expected zero or more")
    ramp = -frames_to_end(starts)  # whole numbers have no -0, so a success ends at 0
    if target == Target.PER_EPISODE:
        return np.where(np.repeat(failed, lengths), -1.0, ramp / np.repeat(lengths, lengths)).astype(np.float32)
    of_task = (longest_episode(lengths, task) if longest is None else longest)[task]
    cost = failure_cost * of_task
    scaled: Float64Array = (ramp - np.repeat(cost * failed, lengths)) / np.repeat(of_task + cost, lengths)
    return scaled.astype(np.float32)


def longest_episode(lengths: IntArray, task: IntArray) -> npt.NDArray[np.int64]:
    """Return the frames of the longest episode of each task, by task number; 0 for a number no episode has."""
    longest = np.zeros(int(task.max()) + 1, dtype=np.int64)
    np.maximum.at(longest, task, lengths)
    return longest


def telescoped_rewards(targets: npt.NDArray[np.float32], starts: IntArray) -> npt.NDArray[np.float32]:
    """Return the reward that the targets imply: r_t = y_t - y_{t+1}, and r_{T-1} = y_{T-1}.

    Summed from t to the end it gives y_t back, so target and reward can never disagree, and the cost of a failure
    stands once, in the last frame (Evo-RL). Targets of ``task_max`` are float32 numbers whose neighbours lie within a
    factor of two, so these differences are exact.

    Args:
        targets: Value targets, (F,) float32.
        starts: Offsets of the episodes, (E + 1,).
    """
    check_frames(starts, targets=targets)
    following = np.append(targets[1:], np.float32(0))
    following[starts[1:] - 1] = 0
    return targets - following
