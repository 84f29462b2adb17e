"""Values of every frame in one pass: decoded once, encoded once, read from, forgotten.

Memory holds the images of a few batches and the features of the last ``lookahead`` frames, however long an episode is.
The bits don't depend on how the episodes are cut into shards: see robolift.value_model.streaming.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from robolift import schema
from robolift.data.ahead import ahead
from robolift.data.dataset import Dataset
from robolift.data.decode_workers import DecodeWorkers
from robolift.data.decoding import Batch, Wanted, decoded, packed
from robolift.data.frames import Frames
from robolift.errors import UsageError
from robolift.logging import progress
from robolift.value_model.checkpoint import Checkpoint
from robolift.value_model.data import read_states, task_rows
from robolift.value_model.features import FEATURES_FILE, FeatureWriter
from robolift.value_model.network import ValueNetwork
from robolift.value_model.streaming import ValueReader

Precision = Literal["float32", "bfloat16"]


def shard_episodes(starts: np.ndarray, shard: int, num_shards: int) -> range:
    """Return the episodes of a shard: whole, contiguous, about as many frames in each shard; may be none.

    An episode belongs to the shard in which its middle frame falls when the frames are cut evenly.
    """
    middle = (starts[:-1] + starts[1:]) / 2
    owner = np.minimum((middle * num_shards / starts[-1]).astype(np.int64), num_shards - 1)
    return range(int(np.searchsorted(owner, shard)), int(np.searchsorted(owner, shard, side="right")))


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
    decode_workers: int = 0,
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
        decode_workers: Processes that decode, 0 for a thread; none where ``frames`` are given.
        frames: The dataset's pictures as the checkpoint wants them, instead of its videos.

    Raises:
        UsageError: If a model without towers is asked for another precision.
        DataError: If the dataset isn't one the model was trained for, or a video is broken.
    """
    if precision != "float32" and model.compact:
        raise UsageError(f"precision {precision} is for towers; set float32 for preset {checkpoint.config.preset}")
    checkpoint.check_dataset(dataset)
    starts = dataset.starts[episodes.start : episodes.stop + 1]
    keys = dataset.keys(int(starts[0]), int(starts[-1]))
    if not episodes:
        nothing = np.empty(0, np.float32)
        return {**keys, "value": nothing, "value_std": nothing, "relative_advantage": nothing}
    states, dims = read_states(dataset, checkpoint.state_keys, list(episodes))
    checkpoint.check_state(dims)
    reader = ValueReader(
        model,
        starts=starts,
        states=checkpoint.state_norm(states),
        tasks=task_rows(dataset, checkpoint.tasks, list(episodes)),
        batch_size=batch_size,
        lookahead=lookahead,
        precision=precision,
    )
    wanted = Wanted(
        cameras=checkpoint.cameras,
        size=checkpoint.image_size,
        padded=checkpoint.padded,
        episodes=episodes,
        batch_size=batch_size,
    )
    save_features = save_features and model.compact and model.num_features > 0
    writer = FeatureWriter(folder / FEATURES_FILE, model.num_features) if save_features else None
    with torch.inference_mode(), images_of(dataset, wanted, decode_workers, frames) as images:
        for batch, features in encoded(model, dataset, wanted, images, precision):
            reader.add(batch, features)
            if writer is not None:
                here = slice(batch.rows.start - starts[0], batch.rows.stop - starts[0])
                found = features[batch.places].cpu().numpy()
                writer.add_arrays(keys[schema.EPISODE_INDEX][here], keys[schema.FRAME_INDEX][here], found)
    if writer is not None:
        writer.close()
    unknown = np.full(len(reader.value), None, dtype=object)
    relative = unknown if reader.relative is None else reader.relative
    return {**keys, "value": reader.value, "value_std": reader.spread, "relative_advantage": relative}


def encoded(
    model: ValueNetwork, dataset: Dataset, wanted: Wanted, images: Iterator[np.ndarray], precision: Precision
) -> Iterator[tuple[Batch, torch.Tensor]]:
    """Yield each batch with its (B, F) features on the model's device, F = 0 without cameras."""
    batches, total = wanted.batches(dataset.starts), wanted.num_batches(dataset.starts)
    for batch in progress(batches, total=total, what="predicting values", unit="batch"):
        features = torch.zeros(wanted.batch_size, 0, device=model.device)
        if wanted.cameras:
            with model.autocast(precision):
                features = model.encode(torch.from_numpy(next(images)).to(model.device))
        yield batch, features


@contextmanager
def images_of(
    dataset: Dataset, wanted: Wanted, decode_workers: int = 0, frames: Frames | None = None
) -> Iterator[Iterator[np.ndarray]]:
    """Give an iterator over the images of each batch, (B, K, H, W, 3) uint8, made while the one before is used.

    An array is only valid until the next is asked for. See :func:`predict`; without cameras there is nothing to give,
    and with ``frames`` nothing for ``decode_workers`` to do.
    """
    if frames is None and decode_workers and wanted.cameras:
        with DecodeWorkers(dataset, wanted, decode_workers) as workers:
            yield workers.images()
        return
    coming = decoded(dataset, wanted) if frames is None else packed(frames, wanted, dataset.starts)
    with contextlib.closing(ahead(coming)) as images:
        yield images
