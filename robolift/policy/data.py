"""What a policy trains on: every frame is the start of an action chunk, under a prompt, with a weight. In RAM, NumPy.

Shape letters: F frames, D observation (states, then features), H action horizon, A action.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from robolift.data.dataset import Dataset
from robolift.data.same_frames import check_keys
from robolift.data.split import split_episodes
from robolift.errors import DataError, UsageError
from robolift.labeling.prompts import BINARY_LABELS, PromptTable, prompt
from robolift.policy.loss import Batch
from robolift.policy.norm_stats import NormStats
from robolift.policy.normalize import Normalizer
from robolift.policy.recipe import UNLABELLED, Recipe

ACTION = "action"
MAX_HELD_OUT = 2048
"""Held-out rows that are measured; more would only cost time."""


@dataclass(frozen=True)
class Labels:
    """What ``label_advantage`` said about each frame, in the dataset's order.

    Attributes:
        prompt: (F,) row of the prompt table.
        weight: (F,) loss weight.
        reason: (F,) why the label is what it is, of :data:`robolift.schema.LABEL_REASONS`.
    """

    prompt: np.ndarray
    weight: np.ndarray
    reason: np.ndarray

    @classmethod
    def align(cls, table: pa.Table, dataset: Dataset, prompts: PromptTable, *, where: str) -> Labels:
        """Take a labels table for ``dataset``.

        Raises:
            DataError: If its frames are not the dataset's, a prompt is outside the table or a weight is not a number.
        """
        check_keys(table, dataset, where=where)
        labels = cls(*(table.column(name).to_numpy() for name in ("prompt_index", "weight", "reason")))
        last = len(prompts.prompts) - 1
        for name, wrong, expected in (
            ("prompt_index", (labels.prompt < 0) | (labels.prompt > last), f"0 to {last}, a row of prompts.json"),
            ("weight", ~(np.isfinite(labels.weight) & (labels.weight >= 0)), "a number, 0 or more"),
        ):
            if wrong.any():
                row = int(wrong.argmax())
                value = table.column(name)[row].as_py()
                raise DataError(f"column {name} is {value} in row {row}", where=where, expected=expected)
        return labels


def frames_left(starts: np.ndarray, paused: np.ndarray) -> np.ndarray:
    """Return (F,) for each frame how many frames follow without a break, itself included; 0 at a paused frame.

    An episode's end and a pause are breaks: what the robot did beyond does not follow from this observation.

    Args:
        starts: (E + 1,) first row of each episode, then F.
        paused: (F,) bool.
    """
    rows = np.arange(len(paused))
    ends = np.repeat(starts[1:], np.diff(starts))
    # For each row the next paused row, F when none follows.
    pauses = np.where(paused, rows, len(rows))
    next_pause = np.minimum.accumulate(pauses[::-1])[::-1] if len(rows) else pauses
    return np.asarray(np.minimum(ends, next_pause) - rows, np.int64)


def shuffle_labels(labels: Labels, task: np.ndarray, seed: int) -> np.ndarray:
    """Return (F,) prompts with those of ranked frames (autonomous ones) permuted within each task: a control.

    Demonstrations and corrections keep their forced positive, and each task keeps its share of positives: what remains
    to be learned from the labels is what the forced ones teach.

    Args:
        labels: The true labels.
        task: (F,) task of each frame.
        seed: Of the permutation.
    """
    generator = np.random.default_rng([seed, 1])
    shuffled = labels.prompt.copy()
    for name in sorted(set(task)):
        rows = np.flatnonzero((task == name) & (labels.reason == "threshold"))
        shuffled[rows] = labels.prompt[generator.permutation(rows)]
    return shuffled


def bare_rows(table: PromptTable, tasks: Sequence[str]) -> np.ndarray:
    """Return (P,) for each prompt the row of its task without a label.

    Raises:
        UsageError: If a bare task is not in the table, or the table has prompts of other tasks.
    """
    rows = np.full(len(table), -1, np.int32)
    for task in tasks:
        bare = table.index(task)
        for label in (None, *BINARY_LABELS, *range(len(table))):
            text = prompt(task, label)
            if text in table.prompts:
                rows[table.index(text)] = bare
    foreign = [text for text, row in zip(table.prompts, rows, strict=True) if row < 0]
    if foreign:
        raise UsageError(f"the labels have prompt {foreign[0]!r}, which is of no task of the dataset; label it again")
    return rows


@dataclass(frozen=True, kw_only=True)
class ChunkData:
    """Action chunks and what was seen before each.

    Attributes:
        observation: (F, D) float32 normalised.
        actions: (F, A) float32 normalised.
        left: (F,) from :func:`frames_left`.
        prompt: (F,) rows of the prompt table.
        weight: (F,) loss weights, mean 1 over the training rows.
        bare: (P,) for each prompt the row of its bare task.
        rows: Frames to train on.
        held_out_rows: Frames to measure on.
        action_horizon: H.
    """

    observation: np.ndarray
    actions: np.ndarray
    left: np.ndarray
    prompt: np.ndarray
    weight: np.ndarray
    bare: np.ndarray
    rows: np.ndarray
    held_out_rows: np.ndarray
    action_horizon: int

    @property
    def num_rows(self) -> int:
        """Rows to train on."""
        return len(self.rows)

    def batch(self, positions: np.ndarray) -> Batch:
        """Return the training rows at ``positions`` in 0..num_rows-1."""
        return self.gather(self.rows[positions])

    def held_out(self) -> Batch | None:
        """Return at most MAX_HELD_OUT held-out rows, evenly spaced."""
        if not len(self.held_out_rows):
            return None
        return self.gather(self.spaced(min(len(self.held_out_rows), MAX_HELD_OUT)))

    def spaced(self, count: int) -> np.ndarray:
        """Return ``count`` held-out frames, evenly spaced."""
        chosen: np.ndarray = self.held_out_rows[np.linspace(0, len(self.held_out_rows) - 1, count).astype(int)]
        return chosen

    def gather(self, rows: np.ndarray) -> Batch:
        """Return what is trained on at some frames of the dataset."""
        offsets = np.arange(self.action_horizon)
        left = self.left[rows, None]
        # Past the break the last action is repeated, because a flow's input needs some action there; ``real`` keeps it
        # out of the loss.
        chunk = rows[:, None] + np.minimum(offsets, left - 1)
        real = (offsets < left).astype(np.float32)
        arrays: Any = (self.observation[rows], self.prompt[rows], self.actions[chunk], real, self.weight[rows])
        return Batch(*arrays)


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """Training data and what a policy must remember of how it was made.

    Attributes:
        chunks: What is trained on and measured.
        held_out: Held-out episodes, sorted, maybe none.
        observation: How states and features were normalised.
        action: How actions were normalised.
        state_dims: Dimensions of each state key.
    """

    chunks: ChunkData
    held_out: np.ndarray
    observation: Normalizer
    action: Normalizer
    state_dims: tuple[int, ...]


def prepare(
    dataset: Dataset,
    recipe: Recipe,
    *,
    prompts: PromptTable,
    labels: Labels | None,
    features: np.ndarray | None,
    held_out: np.ndarray | None = None,
    stats: NormStats | None = None,
) -> Prepared:
    """Make the training data of a variant.

    Normalisation is measured on all frames that are not paused, or given, and the same episodes are held out, whatever
    the variant: all see the same inputs, are measured on the same frames and differ in what they are taught alone.

    Args:
        dataset: The episodes.
        recipe: Which of them, and how.
        prompts: The prompt table.
        labels: Labels of all frames; not needed by ``plain`` and ``filtered``.
        features: (F, G) frozen image features, None without cameras.
        held_out: Episodes not to train on, sorted; None: as the recipe splits them.
        stats: Statistics of states and actions to normalise by, None to measure them here. Features always are.

    Raises:
        DataError: If a column is not finite, no episode is left, or all weights are equal where they should matter.
        UsageError: If the variant needs labels and there are none, or the prompts are those of other tasks.
    """
    states = [finite_column(dataset, key) for key in recipe.state_keys]
    actions = finite_column(dataset, ACTION)
    paused = dataset.column("control_mode") == "paused"
    live = ~paused
    if not live.any():
        raise DataError("every frame is paused", where="control_mode", expected="frames in which something acted")
    if stats is None:
        fits = [Normalizer.fit(state[live], recipe.normalization) for state in states]
        action = Normalizer.fit(actions[live], recipe.normalization)
    else:
        whole = stats.state.normalizer(recipe.normalization)
        ends = np.cumsum([0, *(state.shape[1] for state in states)])
        fits = [Normalizer(whole.offset[a:b], whole.scale[a:b]) for a, b in pairwise(ends)]
        action = stats.actions.normalizer(recipe.normalization)
    if features is not None:
        fits.append(Normalizer.fit(features[live], "mean_std"))
    parts = [*states, *([] if features is None else [features])]
    prompt_rows, weight = _teach(dataset, recipe, prompts, labels)

    length = np.diff(dataset.starts)
    outcome = np.asarray(dataset.episodes.column("outcome").to_pylist(), object)
    if held_out is None:
        _, held_out = split_episodes(outcome, recipe.val_fraction, recipe.seed)
    episode = np.repeat(np.arange(len(length)), length)
    trains = live & np.isin(episode, _taught(outcome, recipe.variant, held_out))
    if not weight[trains].sum():
        raise DataError("no frame to train on has a weight above 0", where="labels, column weight")
    chunks = ChunkData(
        observation=np.concatenate([fit.apply(part) for fit, part in zip(fits, parts, strict=True)], axis=1),
        actions=action.apply(actions),
        left=frames_left(dataset.starts, paused),
        prompt=prompt_rows.astype(np.int32),
        weight=(weight / weight[trains].mean()).astype(np.float32),
        bare=bare_rows(prompts, dataset.tasks),
        rows=np.flatnonzero(trains),
        held_out_rows=np.flatnonzero(live & np.isin(episode, held_out)),
        action_horizon=recipe.action_horizon,
    )
    observation = Normalizer(np.concatenate([f.offset for f in fits]), np.concatenate([f.scale for f in fits]))
    dims = tuple(state.shape[1] for state in states)
    return Prepared(chunks=chunks, held_out=held_out, observation=observation, action=action, state_dims=dims)


def _taught(outcome: np.ndarray, variant: str, held_out: np.ndarray) -> np.ndarray:
    """Return the episodes that a variant trains on."""
    eligible = np.flatnonzero(outcome == "success") if variant == "filtered" else np.arange(len(outcome))
    chosen = np.setdiff1d(eligible, held_out)
    if not len(chosen):
        raise DataError(
            f"no {'successful ' if variant == 'filtered' else ''}episode is left to train on",
            where=f"episodes, column outcome; {len(np.intersect1d(eligible, held_out))} are held out",
            expected="at least one that is not held out",
            mend="hold out less (val_fraction), or record more",
        )
    return chosen


def _teach(
    dataset: Dataset, recipe: Recipe, prompts: PromptTable, labels: Labels | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return (prompt (F,), weight (F,)) of a variant."""
    length = np.diff(dataset.starts)
    task = np.repeat(np.asarray(dataset.episodes.column("task").to_pylist(), object), length)
    row_of = {name: prompts.index(name) for name in sorted(set(task))}
    bare = np.array([row_of[name] for name in task], np.int64)
    ones = np.ones(len(task))
    if recipe.variant in UNLABELLED:
        return bare, ones
    if labels is None:
        raise UsageError(f"variant {recipe.variant} needs input labels")
    if recipe.variant == "advantage":
        return labels.prompt, ones
    if recipe.variant == "shuffled":
        return shuffle_labels(labels, task, recipe.seed), ones
    if (labels.weight == labels.weight[0]).all():
        raise DataError(
            f"every weight is {labels.weight[0]}, so variant weighted would be variant plain",
            where="labels, column weight",
            expected="weights that differ",
            mend="give label_advantage a weight scheme",
        )
    return bare, labels.weight.astype(np.float64)


def finite_column(dataset: Dataset, name: str) -> np.ndarray:
    """Return a column as (F, d) float32.

    Raises:
        DataError: At the first NaN or infinity, with its episode and frame.
    """
    column = np.asarray(dataset.column(name), np.float32)
    column = column.reshape(len(column), -1)
    wrong = ~np.isfinite(column).all(1)
    if wrong.any():
        row = int(wrong.argmax())
        where = {name: int(key[0]) for name, key in dataset.keys(row, row + 1).items()}
        raise DataError(
            f"column {name} is not finite",
            where=f"episode {where['episode_index']}, frame {where['frame_index']}",
            expected="a number in each dimension",
            mend="repair or drop the episode",
        )
    return column
