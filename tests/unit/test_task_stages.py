"""Progress from the stages of a task, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from robolift.errors import DataError
from robolift.labeling.task_stages import stage_progress


def progress(stages: list[int], starts: list[int], count: int) -> list[float]:
    return stage_progress(np.array(stages), np.array(starts), num_task_stages=count).tolist()


def test_each_stage_is_worth_the_same_however_long_it_takes():
    # Two stages: four frames and one frame; then an episode that begins in the second.
    found = progress([0, 0, 0, 0, 1, 1, 1], [0, 5, 7], 2)
    assert found == [0.0, 0.125, 0.25, 0.375, 0.5, 0.5, 0.75]


def test_a_failed_episode_does_not_reach_the_last_stages():
    assert progress([0, 1, 1], [0, 3], 4) == [0.0, 0.25, 0.375]


def test_a_stage_may_be_skipped():
    assert progress([0, 2], [0, 2], 4) == [0.0, 0.5]


def test_a_new_episode_begins_its_stage_anew():
    assert progress([1, 1, 1, 1], [0, 2, 4], 2) == [0.5, 0.75, 0.5, 0.75]


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([0, 1, 0, 1], r"a frame goes back to task stage 0\n  where: episode 0, frame 2"),
        ([0, 1, 2, 2], r"a frame is in task stage 2\n  where: episode 0, frame 2\n  expected: stages from 0 to 1"),
        ([0, 1, 1, -1], r"a frame is in task stage -1\n  where: episode 1, frame 0"),
    ],
)
def test_stages_that_make_no_sense_are_refused(stages, message):
    with pytest.raises(DataError, match=message):
        progress(stages, [0, 3, 4], 2)
