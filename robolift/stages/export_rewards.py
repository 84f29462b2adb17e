"""The columns that an export takes from the table of rewards, under the names that other tools read.

``next.reward`` and ``next.success`` are LeRobot's (gym's step returns them); ``progress`` is in [0, 1];
``stage_progress_gt`` is kai0's. A number that nobody stated is refused, or NaN where the configuration says so: a zero
would be a label.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from robolift.data import lerobot_rewards
from robolift.errors import DataError, UsageError
from robolift.labeling.advantage import KAPPA, progress_rise, rabc_weights_of_rise
from robolift.labeling.exact_sum import ExactSum
from robolift.labeling.returns import BoolArray, FloatArray
from robolift.labeling.task_stages import stage_progress
from robolift.manifest import Manifest
from robolift.stages.export_tables import Block, FrameTables

RewardColumn = Literal["next.reward", "next.success", "progress", "tri", "task_stage"]
Unlabelled = Literal["refuse", "nan"]
PARTS = {"next.reward": "reward", "progress": "progress", "tri": "tri", "task_stage": "stage"}
"""Column of the table ``rewards`` behind each; ``next.success`` is made from the episode's end."""
WHOLE = ("tri", "task_stage")


@dataclass(frozen=True, kw_only=True)
class RewardColumns:
    """The rewards of a dataset, and what becomes of frames that have none.

    Attributes:
        tables: Tables that an export joins, ``rewards`` among them.
        unlabelled: ``refuse``: an error; ``nan``: NaN, where the column is of real numbers.
    """

    tables: FrameTables
    unlabelled: Unlabelled

    @property
    def made(self) -> Manifest:
        """The output that the rewards come from."""
        return self.tables.made["rewards"]

    def check_numbers(self, part: str, *, use: str) -> None:
        """Check that a column is known in each frame, or need not be.

        Raises:
            DataError: If it is null in some frame and that is refused, or in all.
        """
        unknown = self.tables.facts["rewards", part].unknown
        if unknown and (self.unlabelled == "refuse" or unknown == self.tables.dataset.num_frames):
            raise self._lacking(part, use, "label the rest, set unlabelled: nan, or")

    def check_integers(self, part: str, *, use: str) -> None:
        """Check that a column of whole numbers, which can't be NaN, is known in each frame.

        Raises:
            DataError: If it is not.
        """
        if self.tables.facts["rewards", part].unknown:
            raise self._lacking(part, use, "label the rest, or")

    def success(self, *, threshold: float) -> BoolArray:
        """Return which episodes ended with the task solved, (E,).

        People's word on an episode's last frame counts, else its recorded outcome, else the model's: ``merge_rewards``
        has settled that, unless it was told not to use recorded outcomes; of other tables the rows of ``vlm`` give way.
        Where a table says nothing, the recorded outcome counts.

        Raises:
            DataError: If neither says how an episode ended.
        """
        stated, guessed = self._last_words()
        outcome = np.array(self.tables.dataset.episodes.column("outcome").to_pylist(), dtype=object)
        silent = ~np.isfinite(stated)
        if self.made.config.get("use_outcome", True):
            silent |= guessed & (outcome != "unknown")
        lacking = np.flatnonzero(silent & (outcome == "unknown"))
        if len(lacking):
            raise DataError(
                f"next.success is not known of {len(lacking)} of {len(outcome)} episodes",
                where=f"{self.made.file('rewards.parquet')}, first: episode {lacking[0]}",
                expected="a success probability in the last frame, or a recorded outcome; false would say failure",
                mend="label these episodes, or leave next.success out of reward_columns",
            )
        return np.where(silent, outcome == "success", stated >= threshold)

    def _last_words(self) -> tuple[FloatArray, BoolArray]:
        """Return the success probability of each episode's last frame, and whether a model said it, (E,) each."""
        stated, guessed = [], []
        for block in self.tables.blocks():
            last = block.starts[1:] - 1
            stated.append(np.asarray(block.numbers("rewards", "success_prob"), np.float32)[last])
            guessed.append(np.array(block.array("rewards", "source").take(pa.array(last)).to_pylist()) == "vlm")
        return np.concatenate(stated), np.concatenate(guessed)

    def rise(self, *, lookahead: int) -> dict[str, float]:
        """Return mean and variance of the rise of progress over all frames where it is known."""
        total = ExactSum()
        for rise in self._rises(lookahead):
            total.add(rise)
        mean = total.mean() if total.count else 0.0
        square = ExactSum()
        for rise in self._rises(lookahead):
            square.add((rise - mean) ** 2)
        return {"mean": mean, "variance": square.mean() if square.count else 0.0}

    def _rises(self, lookahead: int) -> Iterator[FloatArray]:
        for block in self.tables.blocks():
            rise = progress_rise(real(block, "progress"), block.starts, lookahead=lookahead)
            yield rise[~np.isnan(rise)]

    def _lacking(self, part: str, use: str, mend: str) -> DataError:
        facts, dataset = self.tables.facts["rewards", part], self.tables.dataset
        row = facts.first_unknown
        key = {name: int(column[0]) for name, column in dataset.keys(row, row + 1).items()}
        where = f"first: episode {key['episode_index']}, frame {key['frame_index']}"
        return DataError(
            f"{part} is not known in {facts.unknown} of {dataset.num_frames} frames, and {use} needs it",
            where=f"{self.made.file('rewards.parquet')}, {where}",
            expected="a label in each frame; zero would be one",
            mend=f"{mend} leave {use} out",
        )


def real(block: Block, part: str) -> npt.NDArray[np.float32]:
    """Return a column of the rewards, (n,) float32, NaN where it is not known."""
    values = np.asarray(block.numbers("rewards", part), np.float32)
    return np.where(np.isfinite(values), values, np.float32(np.nan))


def make_reward_columns(
    rewards: RewardColumns, names: tuple[RewardColumn, ...], *, success_threshold: float
) -> Callable[[Block], dict[str, pa.Array]]:
    """Check the labels and return what makes the columns of the set ``rewards`` of a block, (n,) each.

    ``next.reward`` float32 is what the step from this frame earned; ``next.success`` bool, true in the last frame of an
    episode that solved the task; ``progress`` float32 in [0, 1]; ``tri`` int64, -1 regressing, 0 stalled,
    +1 progressing; ``task_stage`` int64 from 0.

    Raises:
        DataError: If a label is missing that the column can't do without.
    """
    solved = np.zeros(0, bool)
    for name in names:
        if name == "next.success":
            solved = rewards.success(threshold=success_threshold)
        elif name in WHOLE:
            rewards.check_integers(PARTS[name], use=name)
        else:
            rewards.check_numbers(PARTS[name], use=name)

    def make(block: Block) -> dict[str, pa.Array]:
        found: dict[str, pa.Array] = {}
        for name in names:
            if name == "next.success":
                success = np.zeros(block.starts[-1], bool)
                success[block.starts[1:] - 1] = solved[block.episodes.start : block.episodes.stop]
                found[name] = pa.array(success)
            elif name in WHOLE:
                found[name] = pa.array(block.numbers("rewards", PARTS[name]).astype(np.int64))
            else:
                found[name] = pa.array(real(block, PARTS[name]))
        return found

    return make


def make_rabc_column(rewards: RewardColumns, *, lookahead: int) -> Callable[[Block], dict[str, pa.Array]]:
    """Return what makes ``rabc_weight`` of a block, (n,) float32 in [0, 1].

    As in LeRobot it is 1 where progress is NaN, if that is allowed.

    Raises:
        DataError: If progress is not known and that is refused.
    """
    rewards.check_numbers("progress", use="rabc_weights")
    spread = rewards.rise(lookahead=lookahead)

    def make(block: Block) -> dict[str, pa.Array]:
        rise = progress_rise(real(block, "progress"), block.starts, lookahead=lookahead)
        return {"rabc_weight": pa.array(rabc_weights_of_rise(rise, kappa=KAPPA, **spread).astype(np.float32))}

    return make


def make_stage_progress_column(
    rewards: RewardColumns, *, num_task_stages: int
) -> Callable[[Block], dict[str, pa.Array]]:
    """Return what makes kai0's ``stage_progress_gt`` of a block, (n,) float32, from the stages that people marked.

    Raises:
        DataError: If a frame has no stage, or one that does not follow from the frame before.
    """
    rewards.check_integers("stage", use="stage_progress")

    def make(block: Block) -> dict[str, pa.Array]:
        stages = block.numbers("rewards", "stage").astype(np.int64)
        progress = stage_progress(
            stages, block.starts, num_task_stages=num_task_stages, first_episode=block.episodes.start
        )
        return {"stage_progress_gt": pa.array(progress.astype(np.float32))}

    return make


def write_lerobot_rewards(rewards: RewardColumns, folder: Path) -> None:
    """Write LeRobot's table of progress, beside the dataset's folder.

    Raises:
        DataError: If progress is not known and that is refused.
    """
    rewards.check_numbers("progress", use="lerobot_rewards")
    path = folder / lerobot_rewards.DEFAULT_FILE
    progress = (real(block, "progress") for block in rewards.tables.blocks())
    lerobot_rewards.write_rewards(path, rewards.tables.dataset, progress, metadata={"robolift": rewards.made.digest})


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
