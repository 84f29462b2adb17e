"""Give each frame its value target and reward, from how its episode ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field

from robolift import schema
from robolift.data.dataset import Dataset
from robolift.errors import DataError
from robolift.labeling.returns import Target, longest_episode, telescoped_rewards, value_targets
from robolift.manifest import Output
from robolift.schema import Kind
from robolift.stages.stage import Input, Inputs, StageConfig

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
    dataset = Dataset.open(inputs.one("dataset"))
    episodes = dataset.episodes
    failed = failed_episodes(episodes)
    names, task = np.unique(episodes.column("task").to_pylist(), return_inverse=True)
    targets = value_targets(dataset.starts, task, failed, target=config.target, failure_cost=config.failure_cost)
    rewards = telescoped_rewards(targets, dataset.starts)
    keys = {name: dataset.frames.column(name) for name in schema.KEYS}
    output.write_table("targets", pa.table({**keys, "value_target": targets, "reward": rewards}))
    longest = longest_episode(np.diff(dataset.starts), task)
    output.metrics["longest_episode"] = dict(zip(names.tolist(), longest.tolist(), strict=True))
    output.metrics["outcomes"] = {
        name: _describe(targets, rewards, dataset.starts, mask)
        for name, mask in (("success", ~failed), ("failure", failed))
    }
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


def _describe(targets: np.ndarray, rewards: np.ndarray, starts: np.ndarray, chosen: np.ndarray) -> dict[str, Any]:
    """Return counts and ranges over the chosen episodes."""
    rows = np.repeat(chosen, np.diff(starts))
    if not chosen.any():
        return {"episodes": 0, "frames": 0}
    first, target, reward = targets[starts[:-1][chosen]], targets[rows], rewards[rows]
    return {
        "episodes": int(chosen.sum()),
        "frames": int(rows.sum()),
        "first_target": {"min": first.min(), "mean": first.astype(np.float64).mean(), "max": first.max()},
        "value_target": {"min": target.min(), "max": target.max()},
        "reward": {"min": reward.min(), "max": reward.max()},
    }
