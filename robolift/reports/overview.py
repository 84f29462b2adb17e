"""What went in: episodes, frames, tasks, who controlled them and how they ended."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from robolift import schema
from robolift.data.dataset import Dataset
from robolift.reports.frames import FrameFacts
from robolift.reports.labels import MODE_COLOURS, OUTCOME_COLOURS, Bar, stacked


@dataclass(frozen=True, kw_only=True)
class TaskRow:
    """One task of the dataset."""

    task: str
    episodes: int
    frames: int
    successes: int
    decided: int


@dataclass(frozen=True, kw_only=True)
class Overview:
    """Everything the data section shows."""

    outcomes: tuple[Bar, ...]
    control_modes: Bar
    tasks: tuple[TaskRow, ...]
    hours: float
    num_corrected: int


def outcomes_by_kind(dataset: Dataset) -> tuple[Bar, ...]:
    """Count how the episodes of each kind ended, as recorded."""
    kinds, outcomes = (dataset.episodes.column(name).to_pylist() for name in ("kind", "outcome"))
    by_kind = []
    for kind in schema.EPISODE_KINDS:
        counted = Counter(outcome for outcome, k in zip(outcomes, kinds, strict=True) if k == kind)
        if counted:
            by_kind.append(stacked(kind, {name: counted[name] for name in schema.OUTCOMES}, OUTCOME_COLOURS))
    return tuple(by_kind)


def describe(dataset: Dataset, frames: FrameFacts) -> Overview:
    """Count a dataset's episodes and frames."""
    outcomes = frames.episodes.column("outcome").to_pylist()
    tasks = frames.episodes.column("task").to_pylist()
    lengths = np.diff(frames.starts)
    modes = np.bincount(frames.control_mode, minlength=len(schema.CONTROL_MODES)).tolist()
    correcting = frames.control_mode == schema.CONTROL_MODES.index("correcting")
    rows = []
    for task in sorted(set(tasks)):
        mine = [i for i, name in enumerate(tasks) if name == task]
        ended = Counter(outcomes[i] for i in mine)
        rows.append(
            TaskRow(
                task=task,
                episodes=len(mine),
                frames=int(lengths[mine].sum()),
                successes=ended["success"],
                decided=ended["success"] + ended["failure"],
            )
        )
    return Overview(
        outcomes=outcomes_by_kind(dataset),
        control_modes=stacked("frames", dict(zip(schema.CONTROL_MODES, modes, strict=True)), MODE_COLOURS),
        tasks=tuple(rows),
        hours=frames.num_frames / dataset.fps / 3600,
        num_corrected=int(np.logical_or.reduceat(correcting, frames.starts[:-1]).sum()),
    )
