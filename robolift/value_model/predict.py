"""Values of every frame: each video is decoded once, each frame encoded once, and the bits don't depend on the cut.

Row r of the dataset always stands at place r % batch_size of a batch of exactly batch_size rows. A shard that begins or
ends inside a batch leaves the other rows of that batch empty, and so does an episode where values are read from its
features. A network computes the rows of a batch apart from one another, so whatever the kernels of a batch shape do,
each row gets the same bits from one shard or from many.

Memory holds the images of two batches, and the features of the episodes that a batch touches.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from robolift import schema
from robolift.data.ahead import ahead
from robolift.data.dataset import Dataset
from robolift.data.frames import Frames, iterate
from robolift.errors import UsageError
from robolift.logging import progress
from robolift.value_model.checkpoint import Checkpoint
from robolift.value_model.data import read_states, task_rows
from robolift.value_model.features import FEATURES_FILE, FeatureWriter
from robolift.value_model.network import ValueNetwork

Precision = Literal["float32", "bfloat16"]


def shard_episodes(starts: np.ndarray, shard: int, num_shards: int) -> range:
    """Return the episodes of a shard: whole, contiguous, about as many frames in each shard; may be none.

    An episode belongs to the shard in which its middle frame falls when the frames are cut evenly.
    """
    middle = (starts[:-1] + starts[1:]) / 2
    owner = np.minimum((middle * num_shards / starts[-1]).astype(np.int64), num_shards - 1)
    return range(int(np.searchsorted(owner, shard)), int(np.searchsorted(owner, shard, side="right")))


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Consecutive rows of the dataset at their fixed places.

    Attributes:
        places: Places of the batch that are in use; the others are zero.
        rows: The same rows, counted over the dataset.
    """

    places: slice
    rows: slice


def cut(first: int, end: int, batch_size: int) -> Iterator[Batch]:
    """Yield rows ``first`` to ``end`` in batches at their fixed places."""
    start = first
    while start < end:
        stop = min(end, (start // batch_size + 1) * batch_size)
        place = start % batch_size
        yield Batch(places=slice(place, place + stop - start), rows=slice(start, stop))
        start = stop


def predict(
    model: ValueNetwork,
    checkpoint: Checkpoint,
    dataset: Dataset,
    *,
    episodes: range,
    batch_size: int,
    lookahead: int,
    folder: Path,
    save_features: bool,
    precision: Precision = "float32",
    frames: Frames | None = None,
) -> dict[str, np.ndarray]:
    """Return the columns of the values table for ``episodes``, and write their features into ``folder`` if asked.

    Args:
        model: Ready to predict.
        checkpoint: What it was trained on.
        dataset: What to predict; no label of it is read.
        episodes: Consecutive episodes of it.
        batch_size: Frames computed at a time.
        lookahead: Frames ahead with which a two-frame model compares each frame for ``relative_advantage``.
        folder: Where features go.
        save_features: Whether to write them, where they are compact; a model of patches has millions a frame.
        precision: Arithmetic of towers; heads are float32 in any case.
        frames: Where the images are, by row; None decodes them.

    Raises:
        UsageError: If a model without towers is asked for another precision.
        DataError: If the dataset isn't one the model was trained for, or a video is broken.
    """
    if precision != "float32" and model.compact:
        raise UsageError(f"precision {precision} is for towers; set float32 for preset {checkpoint.config.preset}")
    checkpoint.check_dataset(dataset)
    first, end = int(dataset.starts[episodes.start]), int(dataset.starts[episodes.stop])
    keys = {name: dataset.frames.column(name).to_numpy()[first:end] for name in schema.KEYS}
    value, spread = np.empty(end - first, np.float32), np.empty(end - first, np.float32)
    relative = np.full(end - first, None, dtype=object)
    columns = {**keys, "value": value, "value_std": spread, "relative_advantage": relative}
    if not episodes:
        return columns
    states, dims = read_states(dataset, checkpoint.state_keys, list(episodes))
    checkpoint.check_state(dims)
    normalised, tasks = checkpoint.state_norm(states), task_rows(dataset, checkpoint.tasks, list(episodes))
    save_features = save_features and model.compact and model.num_features > 0
    writer = FeatureWriter(folder / FEATURES_FILE, model.num_features) if save_features else None
    with torch.inference_mode():
        for rows, features in encode_episodes(model, checkpoint, dataset, episodes, batch_size, precision, frames):
            here = slice(rows.start - first, rows.stop - first)
            seen = Episode(
                first=rows.start,
                features=features,
                states=normalised[here],
                tasks=tasks[here],
                batch_size=batch_size,
                precision=precision,
            )
            value[here], spread[here] = values(model, seen)
            if model.head.num_frames == 2:
                relative[here] = relative_advantage(model, seen, lookahead)
            if writer is not None:
                writer.add_arrays(keys[schema.EPISODE_INDEX][here], keys[schema.FRAME_INDEX][here], features)
    if writer is not None:
        writer.close()
    return columns


def encode_episodes(
    model: ValueNetwork,
    checkpoint: Checkpoint,
    dataset: Dataset,
    episodes: range,
    batch_size: int,
    precision: Precision = "float32",
    frames: Frames | None = None,
) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield each episode's rows of the dataset and their (T, F) features, as soon as they are all encoded."""
    batches = ahead(decode(dataset, checkpoint, episodes, batch_size, frames))
    start = end = int(dataset.starts[episodes.start])
    found = np.empty((0, model.num_features), np.float32)
    for episode in episodes:
        first, last = int(dataset.starts[episode]), int(dataset.starts[episode + 1])
        features = np.empty((last - first, model.num_features), np.float32)
        row = first
        while row < last:
            if row == end:
                batch, images = next(batches)
                start, end = batch.rows.start, batch.rows.stop
                with arithmetic(model, precision):
                    found = _encoded(model, images, batch)
            stop = min(last, end)
            features[row - first : stop - first] = found[row - start : stop - start]
            row = stop
        yield slice(first, last), features


def arithmetic(model: ValueNetwork, precision: Precision) -> torch.autocast:
    """Return the context in which towers compute; what heads make of it is read outside."""
    return torch.autocast(model.device.type, torch.bfloat16, enabled=precision == "bfloat16")


def _encoded(model: ValueNetwork, images: np.ndarray | None, batch: Batch) -> np.ndarray:
    """Return the (B, F) features of a batch's rows that are in use."""
    if images is None:
        return np.empty((batch.rows.stop - batch.rows.start, 0), np.float32)
    return model.encode(torch.from_numpy(images).to(model.device)).cpu().numpy()[batch.places]


def decode(
    dataset: Dataset, checkpoint: Checkpoint, episodes: range, batch_size: int, frames: Frames | None = None
) -> Iterator[tuple[Batch, np.ndarray | None]]:
    """Yield the episodes' batches with their (batch_size, K, H, W, 3) uint8 images, None without cameras."""
    decoded = iterate_frames(dataset, checkpoint, episodes) if checkpoint.cameras and frames is None else None
    for batch in cut(int(dataset.starts[episodes.start]), int(dataset.starts[episodes.stop]), batch_size):
        images = None
        if checkpoint.cameras:
            images = np.zeros((batch_size, len(checkpoint.cameras), *checkpoint.image_size, 3), np.uint8)
        if images is not None and frames is not None:
            images[batch.places] = frames[np.arange(batch.rows.start, batch.rows.stop)]
        elif images is not None and decoded is not None:
            for place in range(batch.places.start, batch.places.stop):
                images[place] = next(decoded)
        yield batch, images


def iterate_frames(dataset: Dataset, checkpoint: Checkpoint, episodes: range) -> Iterator[list[np.ndarray]]:
    """Yield each frame's images, one a camera, over the episodes in order."""
    for episode in progress(episodes, total=len(episodes), what="predicting values", unit="episode"):
        videos = [
            iterate(dataset, episode, camera, size=checkpoint.image_size, padded=checkpoint.padded)
            for camera in checkpoint.cameras
        ]
        for images in zip(*videos, strict=True):
            yield list(images)


@dataclass(frozen=True, kw_only=True)
class Episode:
    """An episode of T frames as the model sees it, each frame encoded once.

    Attributes:
        first: Its first row in the dataset.
        features: (T, F).
        states: (T, S) normalised.
        tasks: (T,) task index.
        batch_size: Rows of every batch, in use or not.
        precision: Arithmetic of towers.
    """

    first: int
    features: np.ndarray
    states: np.ndarray
    tasks: np.ndarray
    batch_size: int
    precision: Precision

    @property
    def length(self) -> int:
        """T."""
        return len(self.features)

    def read(self, model: ValueNetwork, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return value and standard deviation, (T,) each, for the (T, P) frames of the episode that each takes."""
        value, spread = np.empty(self.length, np.float32), np.empty(self.length, np.float32)
        for batch in cut(self.first, self.first + self.length, self.batch_size):
            here = slice(batch.rows.start - self.first, batch.rows.stop - self.first)
            inputs = [self._placed(self.features[frames[here]], batch), self._placed(self.states[frames[here]], batch)]
            task = self._placed(self.tasks[here], batch)
            with arithmetic(model, self.precision):
                logits = model.value_logits(*(torch.from_numpy(x).to(model.device) for x in (*inputs, task)))
            found = (x.cpu().numpy()[batch.places] for x in model.head.read(logits))
            value[here], spread[here] = found
        return value, spread

    def _placed(self, used: np.ndarray, batch: Batch) -> np.ndarray:
        whole = np.zeros((self.batch_size, *used.shape[1:]), used.dtype)
        whole[batch.places] = used
        return whole


def values(model: ValueNetwork, episode: Episode) -> tuple[np.ndarray, np.ndarray]:
    """Return the absolute value of every frame and its standard deviation, (T,) each.

    Of a two-frame model it is f(0, t), the progress made since the first frame, whose own is 0 by definition.
    """
    frames = np.arange(episode.length)[:, None]
    if model.head.num_frames == 1:
        return episode.read(model, frames)
    value, spread = episode.read(model, np.concatenate([np.zeros_like(frames), frames], axis=1))
    value[0] = 0
    return value, spread


def relative_advantage(model: ValueNetwork, episode: Episode, lookahead: int) -> np.ndarray:
    """Return what a two-frame model sees happen in the next ``lookahead`` frames of each frame, (T,) float32.

    f(t, m) with m = min(t + lookahead, T - 1), by :func:`over_lookahead`: kai0's ``relative_advantage``.
    """
    frame = np.arange(episode.length)
    later = np.minimum(frame + lookahead, episode.length - 1)
    made, _ = episode.read(model, np.stack([frame, later], axis=1))
    return over_lookahead(made, later - frame, lookahead)


def over_lookahead(made: np.ndarray, gap: np.ndarray, lookahead: int) -> np.ndarray:
    """Return made * lookahead / gap, clipped to [-1, 1]; 0 where the gap is 0, in the last frame of an episode.

    Args:
        made: (T,) progress made over the gap.
        gap: (T,) frames, at most ``lookahead``; fewer near the end of the episode.
        lookahead: Frames that the result speaks of.

    Returns:
        (T,) float32.
    """
    scaled = made.astype(np.float64) * lookahead / np.maximum(gap, 1)
    return np.where(gap > 0, np.clip(scaled, -1, 1), 0).astype(np.float32)
