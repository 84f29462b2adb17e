"""The columns that an export takes from the table of rewards, under the names that other tools read.

``next.reward`` and ``next.success`` are LeRobot's (gym's step returns them); ``progress`` is in [0, 1];
``stage_progress_gt`` is kai0's. A number that nobody stated is refused, or NaN where the configuration says so: a zero
would be a label.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from robolift.data import lerobot_rewards
from robolift.data.dataset import Dataset
from robolift.errors import DataError, UsageError
from robolift.labeling.advantage import rabc_weights
from robolift.labeling.task_stages import stage_progress
from robolift.manifest import Manifest

RewardColumn = Literal["next.reward", "next.success", "progress", "tri", "task_stage"]
Unlabelled = Literal["refuse", "nan"]
PARTS = {"next.reward": "reward", "progress": "progress", "tri": "tri", "task_stage": "stage"}
"""Column of the table ``rewards`` behind each; ``next.success`` is made from the episode's end."""


@dataclass(frozen=True, kw_only=True)
class RewardTable:
    """The rewards of a dataset, and what becomes of frames that have none.

    Attributes:
        dataset: Whose frames they are.
        table: Table ``rewards``, a row for each frame.
        made: The output it comes from.
        unlabelled: ``refuse``: an error; ``nan``: NaN, where the column is of real numbers.
    """

    dataset: Dataset
    table: pa.Table
    made: Manifest
    unlabelled: Unlabelled

    def numbers(self, part: str, *, use: str) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Return a column, (F,) float32, NaN where it is null if that is allowed.

        Raises:
            DataError: If it is null in some frame and that is refused, or in all.
        """
        values = np.asarray(self.table.column(part).to_numpy(), np.float32)
        unknown = ~np.isfinite(values)
        if unknown.any() and (self.unlabelled == "refuse" or unknown.all()):
            raise self._unlabelled(part, unknown, use, "label the rest, set unlabelled: nan, or")
        return np.where(unknown, np.float32(np.nan), values)

    def integers(self, part: str, *, use: str) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Return a column, (F,) int64.

        Raises:
            DataError: If it is null in some frame: a whole number can't be NaN.
        """
        column = self.table.column(part)
        unknown = column.is_null().to_numpy()
        if unknown.any():
            raise self._unlabelled(part, unknown, use, "label the rest, or")
        return np.asarray(column.to_numpy(), np.int64)

    def success(self, *, threshold: float) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Return in which frames the task has just been solved: the last ones of successes, (F,) bool.

        People's word on an episode's last frame counts, else its recorded outcome, else the model's: ``merge_rewards``
        has settled that, unless it was told not to use recorded outcomes; of other tables the rows of ``vlm`` give way.
        Where a table says nothing, the recorded outcome counts.

        Raises:
            DataError: If neither says how an episode ended.
        """
        last = self.dataset.starts[1:] - 1
        stated = np.asarray(self.table.column("success_prob").to_numpy(), np.float32)[last]
        outcome = np.array(self.dataset.episodes.column("outcome").to_pylist(), dtype=object)
        silent = ~np.isfinite(stated)
        if self.made.config.get("use_outcome", True):
            guessed = np.array(self.table.column("source").to_pylist(), dtype=object)[last] == "vlm"
            silent |= guessed & (outcome != "unknown")
        lacking = np.flatnonzero(silent & (outcome == "unknown"))
        if len(lacking):
            raise DataError(
                f"next.success is not known of {len(lacking)} of {len(last)} episodes",
                where=f"{self.made.file('rewards.parquet')}, first: episode {lacking[0]}",
                expected="a success probability in the last frame, or a recorded outcome; false would say failure",
                mend="label these episodes, or leave next.success out of reward_columns",
            )
        success = np.zeros(self.dataset.num_frames, bool)
        success[last] = np.where(silent, outcome == "success", stated >= threshold)
        return success

    def _unlabelled(self, part: str, unknown: np.ndarray[Any, Any], use: str, mend: str) -> DataError:
        row = int(np.flatnonzero(unknown)[0])
        key = {name: int(column[0]) for name, column in self.dataset.keys(row, row + 1).items()}
        where = f"first: episode {key['episode_index']}, frame {key['frame_index']}"
        return DataError(
            f"{part} is not known in {int(unknown.sum())} of {len(unknown)} frames, and {use} needs it",
            where=f"{self.made.file('rewards.parquet')}, {where}",
            expected="a label in each frame; zero would be one",
            mend=f"{mend} leave {use} out",
        )


def reward_columns(
    rewards: RewardTable, names: tuple[RewardColumn, ...], *, success_threshold: float
) -> dict[str, pa.Array]:
    """Return the columns of the set ``rewards``, (F,) each.

    ``next.reward`` float32 is what the step from this frame earned; ``next.success`` bool; ``progress`` float32 in
    [0, 1]; ``tri`` int64, -1 regressing, 0 stalled, +1 progressing; ``task_stage`` int64 from 0.

    Raises:
        DataError: If a label is missing that the column can't do without.
    """
    made: dict[str, pa.Array] = {}
    for name in names:
        if name == "next.success":
            made[name] = pa.array(rewards.success(threshold=success_threshold))
        elif name in ("tri", "task_stage"):
            made[name] = pa.array(rewards.integers(PARTS[name], use=name))
        else:
            made[name] = pa.array(rewards.numbers(PARTS[name], use=name))
    return made


def rabc_column(rewards: RewardTable, *, lookahead: int) -> dict[str, pa.Array]:
    """Return ``rabc_weight``, (F,) float32 in [0, 1]; as in LeRobot 1 where progress is NaN, if that is allowed."""
    progress = rewards.numbers("progress", use="rabc_weights")
    weights = rabc_weights(progress, rewards.dataset.starts, lookahead=lookahead)
    return {"rabc_weight": pa.array(weights.astype(np.float32))}


def stage_progress_column(rewards: RewardTable, *, num_task_stages: int) -> dict[str, pa.Array]:
    """Return kai0's ``stage_progress_gt``, (F,) float32, from the stages that people marked.

    Raises:
        DataError: If a frame has no stage, or one that does not follow from the frame before.
    """
    stages = rewards.integers("stage", use="stage_progress")
    progress = stage_progress(stages, rewards.dataset.starts, num_task_stages=num_task_stages)
    return {"stage_progress_gt": pa.array(progress.astype(np.float32))}


def write_lerobot_rewards(rewards: RewardTable, folder: Path) -> None:
    """Write LeRobot's table of progress, beside the dataset's folder."""
    progress = rewards.numbers("progress", use="lerobot_rewards")
    path = folder / lerobot_rewards.DEFAULT_FILE
    lerobot_rewards.write_rewards(path, rewards.dataset, progress, metadata={"robolift": rewards.made.digest})


def check_success_threshold(made: Manifest, threshold: float) -> None:
    """Check that success means here what it meant where the rewards were merged.

    Raises:
        UsageError: Naming both numbers.
    """
    merged = made.config.get("success_threshold", threshold)
    if merged != threshold:
        raise UsageError(
            f"success_threshold is {threshold}, and the rewards were merged with {merged} ({made.uri}); "
            "set it to that, so that next.reward and next.success agree"
        )
