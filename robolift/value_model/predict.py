"""Values of every frame: each video is decoded once, each frame encoded once, and the bits don't depend on the cut.

Row r of the dataset always stands at place r % batch_size of a batch of exactly batch_size rows. A shard that begins or
ends inside a batch leaves the other rows of that batch empty. A network computes the rows of a batch apart from one
another, so whatever the kernels of a batch shape do, each row gets the same bits from one shard or from many.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from robolift import schema
from robolift.data.dataset import Dataset
from robolift.logging import progress
from robolift.value_model import heads
from robolift.value_model.checkpoint import Checkpoint
from robolift.value_model.data import read_states, task_rows
from robolift.value_model.features import FEATURES_FILE, FeatureWriter
from robolift.value_model.model import ValueModel


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
        rows: The same rows counted from the shard's first.
        images: (batch_size, K, H, W, 3) uint8, None without cameras.
    """

    places: slice
    rows: slice
    images: np.ndarray | None


def batches(dataset: Dataset, checkpoint: Checkpoint, episodes: range, batch_size: int) -> Iterator[Batch]:
    """Yield a shard's rows batch by batch, decoding as it goes; a batch is valid until the next is asked for."""
    first = int(dataset.starts[episodes.start])
    end = int(dataset.starts[episodes.stop])
    frames = iterate_frames(dataset, checkpoint, episodes) if checkpoint.cameras else None
    height, width = checkpoint.image_size
    start = first
    while start < end:
        stop = min(end, (start // batch_size + 1) * batch_size)
        places = slice(start % batch_size, start % batch_size + stop - start)
        images = None
        if frames is not None:
            images = np.zeros((batch_size, len(checkpoint.cameras), height, width, 3), np.uint8)
            for place in range(places.start, places.stop):
                images[place] = next(frames)
        yield Batch(places=places, rows=slice(start - first, stop - first), images=images)
        start = stop


def iterate_frames(dataset: Dataset, checkpoint: Checkpoint, episodes: range) -> Iterator[list[np.ndarray]]:
    """Yield each frame's images, one a camera, over the episodes in order."""
    for episode in progress(episodes, total=len(episodes), what="predicting values", unit="episode"):
        videos = [dataset.video(episode, camera, size=checkpoint.image_size) for camera in checkpoint.cameras]
        for images in zip(*videos, strict=True):
            yield list(images)


def predict(
    model: ValueModel,
    checkpoint: Checkpoint,
    dataset: Dataset,
    *,
    episodes: range,
    batch_size: int,
    folder: Path,
    save_features: bool,
) -> dict[str, np.ndarray]:
    """Return the columns of the values table for ``episodes``, and write their features into ``folder`` if asked.

    Raises:
        DataError: If the dataset isn't one the model was trained for, or a video is broken.
    """
    checkpoint.check_dataset(dataset)
    if not episodes:
        empty = {name: np.empty(0, np.int64) for name in schema.KEYS}
        return {**empty, "value": np.empty(0, np.float32), "value_std": np.empty(0, np.float32)}
    states, dims = read_states(dataset, checkpoint.state_keys, list(episodes))
    checkpoint.check_state(dims)
    inputs = Inputs(
        states=checkpoint.state_norm(states),
        tasks=task_rows(dataset, checkpoint.tasks, list(episodes)),
        batch_size=batch_size,
        device=model.support.device,
    )
    rows = slice(int(dataset.starts[episodes.start]), int(dataset.starts[episodes.stop]))
    keys = {name: dataset.frames.column(name).to_numpy()[rows] for name in schema.KEYS}
    count = rows.stop - rows.start
    value, spread = np.empty(count, np.float32), np.empty(count, np.float32)
    writer = FeatureWriter(folder / FEATURES_FILE, model.num_features) if save_features and model.num_features else None
    with torch.inference_mode():
        for batch in batches(dataset, checkpoint, episodes, batch_size):
            features, mean, std = inputs.run(model, batch)
            value[batch.rows], spread[batch.rows] = mean, std
            if writer is not None:
                writer.add_arrays(
                    keys[schema.EPISODE_INDEX][batch.rows], keys[schema.FRAME_INDEX][batch.rows], features
                )
    if writer is not None:
        writer.close()
    return {**keys, "value": value, "value_std": spread}


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What the model reads besides images, for one shard.

    Attributes:
        states: (rows, S) normalised.
        tasks: (rows,) task index.
        batch_size: Rows of every batch, in use or not.
        device: Where to compute.
    """

    states: np.ndarray
    tasks: np.ndarray
    batch_size: int
    device: torch.device

    def run(self, model: ValueModel, batch: Batch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return features, mean and standard deviation of the value of the batch's rows that are in use."""
        state = np.zeros((self.batch_size, self.states.shape[1]), np.float32)
        task = np.zeros(self.batch_size, np.int64)
        state[batch.places], task[batch.places] = self.states[batch.rows], self.tasks[batch.rows]
        features = torch.zeros(self.batch_size, 0, device=self.device)
        if batch.images is not None:
            features = model.encode(torch.from_numpy(batch.images).to(self.device))
        logits = model.value_logits(
            features, torch.from_numpy(state).to(self.device), torch.from_numpy(task).to(self.device)
        )
        mean, std = heads.expectation(logits, model.support)
        used = (x[batch.places].cpu().numpy() for x in (features, mean, std))
        return next(used), next(used), next(used)
