"""Give each frame its value target and reward, from how its episode ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field

from robolift.data.dataset import Dataset
from robolift.errors import DataError
from robolift.labeling.returns import Target, longest_episode, telescoped_rewards, value_targets
from robolift.manifest import Output
from robolift.memory import keep_freed_blocks
from robolift.schema import Kind
from robolift.stages.stage import Input, Inputs, StageConfig
from robolift.table_files import episode_blocks

INPUTS = {"dataset": Input(kind=Kind.DATASET)}
OUTPUT = Kind.TARGETS
MAX_NAMED = 10


class Config(StageConfig):
    """Value targets in [-1, 0] and the rewards that add up to them."""

    target: Target = Target.TASK_MAX
    """`task_max`: time to the end over the longest episode of the task, a failure `failure_cost` times that worse.
    `per_episode`: over the episode's own length, a failure -1 throughout (pistar's targets)."""
    failure_cost: float = Field(default=1.0, ge=0)
    """What a failure costs, in lengths of the task's longest episode; from 1 on, every failure lies below every success
    of its task, at 0 time to the end is all that counts. `per_episode` has no use for it."""


def run(config: Config, inputs: Inputs, output: Output) -> Mapping[str, int]:
    """Write ``targets.parquet`` and, as metrics, what came of each outcome."""
    keep_freed_blocks()
    dataset = Dataset.open(inputs.one("dataset"))
    episodes = dataset.episodes
    failed = failed_episodes(episodes)
    texts = episodes.column("task").to_pylist()
    number = {text: index for index, text in enumerate(sorted(set(texts)))}
    task = np.array([number[text] for text in texts])
    longest = longest_episode(np.diff(dataset.starts), task)
    found = {"success": _Described(), "failure": _Described()}
    with output.open_table("targets") as table:
        for block in episode_blocks(dataset.starts):
            some = slice(block.start, block.stop)
            first, end = int(dataset.starts[block.start]), int(dataset.starts[block.stop])
            starts = dataset.starts[block.start : block.stop + 1] - first
            targets = value_targets(
                starts,
                task[some],
                failed[some],
                target=config.target,
                failure_cost=config.failure_cost,
                longest=longest,
            )
            rewards = telescoped_rewards(targets, starts)
            table.add({**dataset.keys(first, end), "value_target": targets, "reward": rewards})
            found["success"].add(targets, rewards, starts, ~failed[some])
            found["failure"].add(targets, rewards, starts, failed[some])
    output.metrics["longest_episode"] = dict(zip(number, longest.tolist(), strict=True))
    output.metrics["outcomes"] = {name: described.to_dict() for name, described in found.items()}
    return {"episodes": dataset.num_episodes, "frames": dataset.num_frames}


def failed_episodes(episodes: pa.Table) -> np.ndarray:
    """Return whether each episode failed, (E,) bool; a demonstration of unknown outcome counts as a success.

    Raises:
        DataError: If the outcome of a rollout is unknown.
    """
    outcome = np.array(episodes.column("outcome").to_pylist())
    kind = np.array(episodes.column("kind").to_pylist())
    unknown = np.flatnonzero((outcome == "unknown") & (kind == "rollout"))
    if len(unknown):
        numbers = episodes.column("episode_index").to_numpy()[unknown].tolist()
        named = ", ".join(str(number) for number in numbers[:MAX_NAMED])
        raise DataError(
            f"{len(numbers)} rollouts have no known outcome",
            where=f"episodes {named}{', ...' if len(numbers) > MAX_NAMED else ''}",
            expected="success or failure for each rollout",
            mend="record the outcome in the dataset's episodes and import it again",
        )
    return np.asarray(outcome == "failure")


class _Described:
    """Counts and ranges over the episodes of one outcome, gathered from blocks of episodes."""

    def __init__(self) -> None:
        self._frames = 0
        self._first: list[np.ndarray] = []  # the first target of each episode
        self._extremes: dict[str, list[np.floating]] = {"value_target": [], "reward": []}

    def add(self, targets: np.ndarray, rewards: np.ndarray, starts: np.ndarray, chosen: np.ndarray) -> None:
        if not chosen.any():
            return
        rows = np.repeat(chosen, np.diff(starts))
        self._frames += int(rows.sum())
        self._first.append(targets[starts[:-1][chosen]])
        for name, values in (("value_target", targets[rows]), ("reward", rewards[rows])):
            self._extremes[name] += [values.min(), values.max()]

    def to_dict(self) -> dict[str, Any]:
        if not self._first:
            return {"episodes": 0, "frames": 0}
        first = np.concatenate(self._first)
        return {
            "episodes": len(first),
            "frames": self._frames,
            "first_target": {"min": first.min(), "mean": first.astype(np.float64).mean(), "max": first.max()},
            **{name: {"min": min(found), "max": max(found)} for name, found in self._extremes.items()},
        }
