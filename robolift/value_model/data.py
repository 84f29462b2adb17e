"""From a dataset to what the value model trains on: arrays in memory, checked before any work, and random views."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from robolift.data.dataset import Dataset
from robolift.data.same_frames import check_keys
from robolift.data.split import split_episodes
from robolift.errors import DataError, UsageError
from robolift.value_model.recipe import Recipe

ACTION = "action"
CONSTANT_BELOW = 1e-6
"""A dimension that varies less is taken as constant; dividing by such a spread would only make noise."""


@dataclass(frozen=True, kw_only=True)
class Normalizer:
    """Subtracts a mean and divides by a standard deviation, dimension by dimension.

    Attributes:
        mean: (D,) float32.
        std: (D,) float32, 1 where the data is constant.
    """

    mean: np.ndarray
    std: np.ndarray

    @classmethod
    def of(cls, rows: np.ndarray) -> Normalizer:
        """Measure ``rows`` (N, D)."""
        mean, std = rows.mean(0, dtype=np.float64), rows.std(0, dtype=np.float64)
        std = np.where(std < CONSTANT_BELOW, 1.0, std)
        return cls(mean=mean.astype(np.float32), std=std.astype(np.float32))

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Return normalised float32 rows."""
        return np.asarray((rows - self.mean) / self.std, dtype=np.float32)


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """Everything but the images, one row a frame of the dataset.

    Attributes:
        cameras: Camera keys the model looks through.
        states: (N, S) float32, normalised.
        state_dims: Dimensions of each state key.
        state_norm: How states were normalised; measured on the training episodes.
        tasks: (N,) int64 task index.
        targets: (N,) float32: value target in [-1, 0], or progress in [0, 1] for a head that learns progress.
        actions: (N, A) float32, normalised; A is 0 when no action head is trained.
        action_norm: How actions were normalised.
        starts: (E + 1,) first row of each episode.
        success: (E,) 1 success, 0 failure, -1 unknown.
        held_out: Held-out episodes, sorted, maybe none.
        train_rows: Rows of the training episodes.
        val_rows: Rows of the held-out episodes, in order, maybe none.
    """

    cameras: tuple[str, ...]
    states: np.ndarray
    state_dims: tuple[int, ...]
    state_norm: Normalizer
    tasks: np.ndarray
    targets: np.ndarray
    actions: np.ndarray
    action_norm: Normalizer
    starts: np.ndarray
    success: np.ndarray
    held_out: np.ndarray
    train_rows: np.ndarray
    val_rows: np.ndarray

    def value_targets(self, frames: np.ndarray) -> np.ndarray:
        """Return the (B,) targets of (B, P) rows: of one frame its own, of two the second's less the first's."""
        target: np.ndarray = self.targets[frames[:, -1]]
        return target if frames.shape[1] == 1 else target - self.targets[frames[:, 0]]

    def action_chunk(self, rows: np.ndarray, horizon: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the actions from each row on, (B, horizon, A), and which are inside its episode, (B, horizon)."""
        ends = self.starts[np.searchsorted(self.starts, rows, side="right")]
        steps = rows[:, None] + np.arange(horizon)
        return self.actions[np.minimum(steps, ends[:, None] - 1)], steps < ends[:, None]


def prepare(recipe: Recipe, dataset: Dataset, targets: pa.Table | None) -> TrainingData:
    """Check that ``dataset`` and ``targets`` can be trained on and load all but the images.

    Raises:
        UsageError: If a camera or state key isn't in the dataset, too few episodes are left to train on, or targets
            are missing or not wanted.
        DataError: If the targets belong to other frames, progress is missing or says nothing, or a number isn't finite.
    """
    check_wants_targets(recipe, given=targets is not None)
    cameras = dataset.cameras if recipe.cameras is None else tuple(recipe.cameras)
    missing = sorted(set(cameras) - set(dataset.cameras))
    if missing:
        raise UsageError(f"cameras: no {', '.join(missing)} in the dataset; it has: {', '.join(dataset.cameras)}")
    if not cameras and not recipe.state_keys:
        raise UsageError("the dataset has no camera and state_keys is empty: the model would see nothing")
    states, state_dims = read_states(dataset, recipe.state_keys)
    value_targets = read_progress(dataset, recipe.progress_column) if targets is None else _checked(dataset, targets)
    success = _success(dataset)
    train, held_out = split_episodes(success, recipe.val_fraction, recipe.seed)
    train_rows = _rows(dataset.starts, train)
    if targets is None:
        check_informative(recipe, value_targets, dataset.starts, train_rows)
    actions = np.empty((dataset.num_frames, 0), np.float32)
    if cameras and recipe.action_weight > 0:
        actions = _finite(_as_matrix(dataset.column(ACTION), ACTION), ACTION, dataset)
    state_norm, action_norm = Normalizer.of(states[train_rows]), Normalizer.of(actions[train_rows])
    return TrainingData(
        cameras=cameras,
        states=state_norm(states),
        state_dims=state_dims,
        state_norm=state_norm,
        tasks=task_rows(dataset, dataset.tasks),
        targets=value_targets,
        actions=action_norm(actions),
        action_norm=action_norm,
        starts=dataset.starts,
        success=success,
        held_out=held_out,
        train_rows=train_rows,
        val_rows=_rows(dataset.starts, held_out),
    )


def check_wants_targets(recipe: Recipe, *, given: bool) -> None:
    """Refuse value targets for a head that learns progress, and their absence for the one that learns them.

    Raises:
        UsageError: Naming the head.
    """
    if recipe.head == "distribution" and not given:
        raise UsageError("head distribution learns value targets: give input targets, the output of label_returns")
    if recipe.head != "distribution" and given:
        raise UsageError(f"head {recipe.head} learns column {recipe.progress_column}: leave input targets out")


def read_progress(dataset: Dataset, name: str) -> np.ndarray:
    """Return the progress of every frame, (N,) float32 in [0, 1].

    Training needs every frame annotated; predicting never reads this column.

    Raises:
        DataError: If a source has no such column, or a frame has no progress in it.
    """
    mend = "annotate every episode, or train on those that are annotated and predict the rest"
    if name not in dataset.features:
        raise DataError(
            f"no column {name} of progress in all of the dataset's sources",
            where=dataset.uri,
            expected="the fraction of the task done, in [0, 1], in every frame to train on",
            mend=f"{mend}; another name goes into progress_column",
        )
    rows = _as_matrix(dataset.column(name), name)
    if rows.shape[1] != 1:
        raise DataError(f"column {name} holds {rows.shape[1]} numbers a frame", expected="one", mend=mend)
    progress = rows[:, 0]
    wrong = ~((progress >= 0) & (progress <= 1))
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise DataError(
            f"{int(wrong.sum())} of {len(progress)} values of {name} are no progress",
            where=f"first: {_place(dataset, row)}: {progress[row]}",
            expected="a number in [0, 1]",
            mend=mend,
        )
    return progress


def check_informative(recipe: Recipe, progress: np.ndarray, starts: np.ndarray, train_rows: np.ndarray) -> None:
    """Refuse progress from which nothing can be learned: the same in all frames, or, for pairs, within each episode.

    Raises:
        DataError: If it is; so it is for pairs when every episode has but one frame.
    """
    said = progress
    if recipe.head == "relative":
        said = progress - np.repeat(progress[starts[:-1]], np.diff(starts))
    said = said[train_rows]
    if said.min() == said.max():
        where = "within each training episode" if recipe.head == "relative" else "in all training frames"
        raise DataError(
            f"{recipe.progress_column} is the same {where}",
            where=f"{len(train_rows)} frames, the first has {progress[train_rows[0]]}",
            expected="progress that grows from 0 to 1",
            mend="annotate the episodes, or name another progress_column",
        )


def read_states(
    dataset: Dataset, keys: Sequence[str], episodes: Sequence[int] | None = None
) -> tuple[np.ndarray, tuple[int, ...]]:
    """Return the joined state columns, (rows, S) float32 not normalised, and the dimensions of each.

    Raises:
        DataError: If a column is missing, or a number isn't finite.
    """
    parts = [_finite(_as_matrix(dataset.column(key, episodes), key), key, dataset, episodes) for key in keys]
    if not parts:
        chosen = range(dataset.num_episodes) if episodes is None else episodes
        num_rows = sum(int(dataset.starts[e + 1] - dataset.starts[e]) for e in chosen)
        return np.empty((num_rows, 0), np.float32), ()
    return np.concatenate(parts, axis=1), tuple(part.shape[1] for part in parts)


def task_rows(dataset: Dataset, tasks: Sequence[str], episodes: Sequence[int] | None = None) -> np.ndarray:
    """Return the index in ``tasks`` of every frame's task, (rows,) int64."""
    index = {task: i for i, task in enumerate(tasks)}
    names = dataset.episodes.column("task").to_pylist()
    chosen = range(dataset.num_episodes) if episodes is None else episodes
    lengths = [int(dataset.starts[e + 1] - dataset.starts[e]) for e in chosen]
    return np.repeat(np.array([index[names[e]] for e in chosen], dtype=np.int64), lengths)


def _rows(starts: np.ndarray, episodes: np.ndarray) -> np.ndarray:
    spans = [np.arange(starts[e], starts[e + 1]) for e in episodes]
    return np.concatenate(spans) if spans else np.empty(0, np.int64)


def _success(dataset: Dataset) -> np.ndarray:
    code = {"success": 1, "failure": 0, "unknown": -1}
    return np.array([code[outcome] for outcome in dataset.episodes.column("outcome").to_pylist()], dtype=np.int64)


def _checked(dataset: Dataset, targets: pa.Table) -> np.ndarray:
    check_keys(targets, dataset, where="targets", mend="run label_returns on this dataset")
    values: np.ndarray = targets.column("value_target").to_numpy().astype(np.float32)
    wrong = ~((values >= -1) & (values <= 0))
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise DataError(f"value_target is {values[row]}", where=f"targets, row {row}", expected="a number in [-1, 0]")
    return values


def _as_matrix(column: np.ndarray, name: str) -> np.ndarray:
    if not np.issubdtype(column.dtype, np.number):
        raise DataError(f"column {name} holds no numbers", expected="float32", mend="choose other state_keys")
    rows = np.asarray(column, dtype=np.float32)
    return rows[:, None] if rows.ndim == 1 else rows


def _finite(rows: np.ndarray, name: str, dataset: Dataset, episodes: Sequence[int] | None = None) -> np.ndarray:
    wrong = ~np.isfinite(rows).all(axis=1)
    if wrong.any():
        row = int(_rows(dataset.starts, np.asarray(episodes or range(dataset.num_episodes)))[np.flatnonzero(wrong)[0]])
        raise DataError(
            f"{int(wrong.sum())} rows of {name} are not finite",
            where=f"first in {_place(dataset, row)}",
            expected="numbers",
            mend="repair or drop the episode",
        )
    return rows


def _place(dataset: Dataset, row: int) -> str:
    episode = int(np.searchsorted(dataset.starts, row, side="right")) - 1
    return f"episode {episode}, frame {row - int(dataset.starts[episode])}"
