"""Progress from the stages of a task, as people mark them."""

from __future__ import annotations

import numpy as np

from robolift.errors import DataError
from robolift.labeling.returns import Float64Array, IntArray, check_frames, episode_of_frame


def stage_progress(stages: IntArray, starts: IntArray, *, num_task_stages: int, first_episode: int = 0) -> Float64Array:
    """Return progress in which every stage of the task is worth the same, however long it takes.

        p_t = (k + i / n) / S

    for the i-th (from 0) of the n frames that an episode spends in stage k of S. This is kai0's ``stage_progress_gt``
    (its README; arXiv 2602.09021): 0 where an episode begins in stage 0, and never quite 1.

    Args:
        stages: k, the stage of each frame, (F,); it never falls within an episode.
        starts: Offsets of the episodes, (E + 1,).
        num_task_stages: S.
        first_episode: Number of the first episode, for errors.

    Returns:
        p in [0, 1), (F,) float64.

    Raises:
        UsageError: If shapes disagree.
        DataError: If a stage is outside 0 to S - 1, or an episode goes back to an earlier one.
    """
    check_frames(starts, stages=stages)
    first = np.zeros(len(stages), bool)
    first[starts[:-1]] = True
    change = np.diff(stages.astype(np.int64), prepend=0)
    outside = (stages < 0) | (stages >= num_task_stages)
    wrong = np.flatnonzero(outside | ((change < 0) & ~first))
    if len(wrong):
        row, episode = int(wrong[0]), int(episode_of_frame(starts)[wrong[0]])
        problem = f"is in task stage {stages[row]}" if outside[row] else f"goes back to task stage {stages[row]}"
        raise DataError(
            f"a frame {problem}",
            where=f"episode {first_episode + episode}, frame {row - int(starts[episode])}",
            expected=f"stages from 0 to {num_task_stages - 1}, one after the other",
            mend="mark the boundaries of that episode again, or state another number of task stages",
        )
    begins = np.flatnonzero(first | (change != 0))
    lengths = np.diff(np.append(begins, len(stages)))
    position = np.arange(len(stages)) - np.repeat(begins, lengths)
    progress: Float64Array = (stages + position / np.repeat(lengths, lengths)) / num_task_stages
    return progress
