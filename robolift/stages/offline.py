"""Action error of a policy on recorded episodes that it was not trained on: what can be measured without a robot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa

from robolift.data.dataset import Dataset
from robolift.errors import DataError, UsageError
from robolift.manifest import Manifest
from robolift.policy.normalize import SMALLEST_SCALE
from robolift.sim.recording import Actor

HUMAN_MODES = ("demo", "correcting")
BATCH_ROWS = 64
BOOTSTRAP_SAMPLES = 2000
ERRORS = pa.schema(
    [
        pa.field("condition", pa.string(), nullable=False),
        pa.field("prompt", pa.string(), nullable=False),
        pa.field("episode_index", pa.int64(), nullable=False),
        pa.field("frame_index", pa.int64(), nullable=False),
        pa.field("control_mode", pa.string(), nullable=False),
        pa.field("action_mse", pa.float32(), nullable=False),
        pa.field("first_action_mse", pa.float32(), nullable=False),
    ]
)


@dataclass(frozen=True)
class Asked:
    """One condition: its name, and for each task text the prompt and the policy under it."""

    name: str
    prompts: Mapping[str, str]
    actors: Mapping[str, Actor]


def held_out_episodes(
    policy: Manifest, dataset: Manifest, opened: Dataset, held_out: Sequence[int] | None
) -> Sequence[int]:
    """Return the episodes of ``dataset`` that the policy has not seen, sorted.

    Of the dataset it was trained on, those that its training held out; all episodes of a dataset that shares no
    source with that one, nor with the dataset of its image encoder.

    Args:
        policy: The policy.
        dataset: What to measure on.
        opened: The same, open.
        held_out: What the policy says that it held out.

    Raises:
        UsageError: If there are none, or the two datasets overlap without being the same.
    """
    trained_on = policy.parent("dataset")
    if trained_on.digest != dataset.digest:
        encoders = policy.parents("checkpoint") if policy.config.get("vision") == "frozen" else []
        for seen in (trained_on, *(encoder.parent("dataset") for encoder in encoders)):
            if {s.digest for s in opened.sources} & {s.digest for s in Dataset.open(seen).sources}:
                raise UsageError(
                    "the policy was trained on a part of this dataset and would be measured on what it knows: "
                    f"evaluate on {trained_on.uri}, or on other recordings"
                )
        return range(opened.num_episodes)
    if held_out is None:
        raise UsageError("the policy does not say which episodes it held out: run train_policy again")
    if not held_out:
        raise UsageError(
            "the policy held out no episode: train it with val_fraction above 0, and its value model if it has one"
        )
    return held_out


def rows_to_measure(dataset: Dataset, episodes: Sequence[int], *, stride: int) -> dict[int, np.ndarray]:
    """Return for each episode its dataset rows to measure: every ``stride``-th frame that is not paused.

    Episodes without such a frame are left out.

    Raises:
        DataError: If none is left.
    """
    # JAX is loaded by whoever calls this anyway; not by --dry-run.
    from robolift.policy.data import frames_left  # noqa: PLC0415

    left = frames_left(dataset.starts, dataset.column("control_mode") == "paused")
    found = {}
    for episode in episodes:
        rows = np.arange(dataset.starts[episode], dataset.starts[episode + 1], stride)
        if (left[rows] > 0).any():
            found[episode] = rows[left[rows] > 0]
    if not found:
        raise DataError(
            "there is no frame to measure in the held-out episodes",
            where=f"episodes {', '.join(map(str, episodes))}, every {stride}th frame: all paused",
            expected="a frame in which something acted",
            mend="hold out more episodes, or evaluate with a smaller stride",
        )
    return found


def measure(
    dataset: Dataset,
    rows_of: Mapping[int, np.ndarray],
    asked: Sequence[Asked],
    *,
    keys: Sequence[str],
    image_size: tuple[int, int] | None,
    seed: int,
) -> Iterator[pa.Table]:
    """Yield one table of :data:`ERRORS` per episode and condition.

    The error of a frame is the mean over the chunk's actions and dimensions of ((predicted - recorded) / s)^2, where s
    is the dimension's standard deviation over the dataset, 1 where it is constant: 1 is what predicting the mean
    action would give. Actions past the episode's end or past a pause don't count.

    Args:
        dataset: The episodes.
        rows_of: From :func:`rows_to_measure`.
        asked: Conditions.
        keys: States the policy reads.
        image_size: (height, width) of its images.
        seed: Of the policy's noise.
    """
    from robolift.policy.data import frames_left  # noqa: PLC0415

    # As policies normalise: in float32 the spread of a constant dimension is a rounding error above 0.
    spread = dataset.column("action").std(axis=0, dtype=np.float64)
    scale = np.where(spread < SMALLEST_SCALE, 1.0, spread)
    modes = np.asarray(dataset.frames.column("control_mode").to_pylist(), dtype=object)
    left = frames_left(dataset.starts, modes == "paused")
    tasks = dataset.episodes.column("task").to_pylist()
    for episode, rows in rows_of.items():
        frames = rows - dataset.starts[episode]
        recorded = dataset.column("action", [episode])
        observed = _observations(dataset, episode, frames, keys, image_size)
        for condition in asked:
            predicted = _act(condition.actors[tasks[episode]], observed, [(seed << 40) + int(row) for row in rows])
            squared = _squared_errors(predicted, recorded, frames, scale)
            real = np.arange(predicted.shape[1]) < left[rows, None]  # (rows, horizon)
            yield pa.table(
                {
                    "condition": [condition.name] * len(rows),
                    "prompt": [condition.prompts[tasks[episode]]] * len(rows),
                    "episode_index": np.full(len(rows), episode),
                    "frame_index": frames,
                    "control_mode": modes[rows],
                    "action_mse": ((squared * real).sum(axis=1) / real.sum(axis=1)).astype(np.float32),
                    "first_action_mse": squared[:, 0].astype(np.float32),
                },
                schema=ERRORS,
            )


def _observations(
    dataset: Dataset, episode: int, frames: np.ndarray, keys: Sequence[str], image_size: tuple[int, int] | None
) -> dict[str, np.ndarray]:
    """Return the policy's inputs at some frames of an episode; images are decoded once, in order."""
    wanted = {int(frame) for frame in frames}
    observed: dict[str, np.ndarray] = {}
    for key in keys:
        if key in dataset.cameras:
            images = enumerate(dataset.video(episode, key, size=image_size))
            observed[key] = np.stack([image for number, image in images if number in wanted])
        else:
            column = np.asarray(dataset.column(key, [episode]), np.float32)
            observed[key] = column.reshape(len(column), -1)[frames]
    return observed


def _act(actor: Actor, observed: Mapping[str, np.ndarray], seeds: Sequence[int]) -> np.ndarray:
    """Return (rows, horizon, dim), asking for a bounded number of rows at once."""
    parts = []
    for start in range(0, len(seeds), BATCH_ROWS):
        part = slice(start, start + BATCH_ROWS)
        parts.append(
            actor({key: value[part] for key, value in observed.items()}, list(islice(seeds, start, part.stop)))
        )
    return np.concatenate(parts)


def _squared_errors(predicted: np.ndarray, recorded: np.ndarray, frames: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return (rows, horizon): squared error in units of ``scale``, mean over dimensions; the end repeats its action."""
    steps = np.minimum(frames[:, None] + np.arange(predicted.shape[1]), len(recorded) - 1)
    error = (predicted.astype(np.float64) - recorded[steps]) / scale
    squared: np.ndarray = np.square(error).mean(axis=2)
    return squared


def error_metrics(table: pa.Table, *, seed: int) -> dict[str, Any]:
    """Return per condition ``action_mse`` with a 95 % bootstrap interval over episodes (null for one), and parts of it.

    ``first_action_mse`` is of the next action alone; ``human_action_mse`` of frames that a person controlled, null
    where there are none. Whether conditions differ is told by their errors on the same frames.
    """
    found: dict[str, Any] = {}
    conditions = np.array(table.column("condition").to_pylist(), dtype=object)
    for name in dict.fromkeys(conditions):
        rows = table.filter(pa.array(conditions == name))
        error = rows.column("action_mse").to_numpy().astype(np.float64)
        human = np.isin(np.array(rows.column("control_mode").to_pylist(), dtype=object), HUMAN_MODES)
        episode = rows.column("episode_index").to_numpy()
        low, high = bootstrap_interval(error, episode, seed=seed)
        found[name] = {
            "action_mse": float(error.mean()),
            "ci_low": low,
            "ci_high": high,
            "first_action_mse": float(rows.column("first_action_mse").to_numpy().mean(dtype=np.float64)),
            "human_action_mse": float(error[human].mean()) if human.any() else None,
            "n": len(error),
            "episodes": len(np.unique(episode)),
        }
    return found


def bootstrap_interval(values: np.ndarray, groups: np.ndarray, *, seed: int) -> tuple[float, float] | tuple[None, None]:
    """Return the 95 % percentile interval of the mean when whole groups are drawn with replacement.

    Frames of one episode are not independent; drawing frames would make the interval far too narrow. One group says
    nothing of how groups differ: then there is no interval.

    Args:
        values: (n,) numbers.
        groups: (n,) group of each.
        seed: Of the draws.
    """
    _, number = np.unique(groups, return_inverse=True)
    sums, counts = np.bincount(number, weights=values), np.bincount(number)
    if len(counts) < 2:
        return None, None
    drawn = np.random.default_rng([seed, 3]).integers(0, len(sums), (BOOTSTRAP_SAMPLES, len(sums)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)
