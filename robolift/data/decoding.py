"""The frames of consecutive episodes in order, batch by batch, each decoded once.

Row r of the dataset stands at place r % batch_size of batch r // batch_size, whichever episodes are asked for, so
that a batch is the same array wherever a shard begins.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from robolift.data.dataset import Dataset
from robolift.data.frames import Frames, decoded_size
from robolift.data.letterbox import Size, put


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Consecutive rows of the dataset at their fixed places.

    Attributes:
        places: Places of the batch that are in use.
        rows: The same rows, counted over the dataset.
        number: Which batch of the dataset.
    """

    places: slice
    rows: slice
    number: int


def cut(first: int, end: int, batch_size: int) -> Iterator[Batch]:
    """Yield rows ``first`` to ``end`` in batches at their fixed places."""
    start = first
    while start < end:
        number, place = divmod(start, batch_size)
        stop = min(end, (number + 1) * batch_size)
        yield Batch(places=slice(place, place + stop - start), rows=slice(start, stop), number=number)
        start = stop


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which frames, and how they are to look.

    Attributes:
        cameras: In the order wanted.
        size: (height, width) of the images.
        padded: Whether images keep their shape and black fills the rest, instead of being stretched.
        episodes: Consecutive episodes.
        batch_size: Places of a batch.
    """

    cameras: tuple[str, ...]
    size: Size
    padded: bool
    episodes: range
    batch_size: int

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of a batch, (batch_size, K, H, W, 3)."""
        return (self.batch_size, len(self.cameras), *self.size, 3)

    def num_batches(self, starts: np.ndarray) -> int:
        """Return how many batches :meth:`batches` yields."""
        first, end = int(starts[self.episodes.start]), int(starts[self.episodes.stop])
        return -(-end // self.batch_size) - first // self.batch_size

    def batches(self, starts: np.ndarray) -> Iterator[Batch]:
        """Yield the batches of a dataset with these (E + 1,) first rows of episodes."""
        return cut(int(starts[self.episodes.start]), int(starts[self.episodes.stop]), self.batch_size)


def decoded(dataset: Dataset, wanted: Wanted) -> Iterator[np.ndarray]:
    """Yield the images of each batch, (B, K, H, W, 3) uint8, places that are not in use zero.

    An array is valid until the next but one is asked for, which lies in the same memory: to be given new memory takes
    a quarter as long as to decode into it.

    Raises:
        DataError: If a video is missing, unreadable, or shorter than its table.
    """
    streams = [camera_frames(dataset, wanted, camera) for camera in wanted.cameras]
    arrays = itertools.cycle(np.zeros((2, *wanted.shape), np.uint8))
    for batch, images in zip(wanted.batches(dataset.starts), arrays, strict=False):
        images[: batch.places.start] = 0
        images[batch.places.stop :] = 0
        for position, stream in enumerate(streams):
            fill(images[batch.places, position], stream)
        yield images


def packed(frames: Frames, wanted: Wanted, starts: np.ndarray) -> Iterator[np.ndarray]:
    """Yield what :func:`decoded` yields, read from pictures that already have the wanted cameras and look."""
    for batch in wanted.batches(starts):
        images = np.zeros(wanted.shape, np.uint8)
        images[batch.places] = frames[np.arange(batch.rows.start, batch.rows.stop)]
        yield images


def fill(images: np.ndarray, stream: Iterator[np.ndarray]) -> None:
    """Put the next frames of a stream into (n, H, W, 3) ``images``, black around those that are smaller."""
    for image in images:
        put(next(stream), image)


def camera_frames(
    dataset: Dataset, wanted: Wanted, camera: str, *, lane: int = 0, num_lanes: int = 1
) -> Iterator[np.ndarray]:
    """Yield one camera's frames of the wanted episodes in order, each decoded once, uint8.

    They are no larger than wanted, and smaller where black is to fill the rest.

    Args:
        dataset: The dataset.
        wanted: Which episodes, and how images are to look.
        camera: One of the cameras.
        lane: Only the frames of batches ``lane``, ``lane + num_lanes`` and so on.
        num_lanes: How many share the batches.
    """
    for episode in wanted.episodes:
        first, end = int(dataset.starts[episode]), int(dataset.starts[episode + 1])
        mine = [batch.rows for batch in cut(first, end, wanted.batch_size) if batch.number % num_lanes == lane]
        if not mine:
            continue
        parts = [range(rows.start - first, rows.stop - first) for rows in mine]
        size = decoded_size(dataset, episode, camera, wanted.size, padded=wanted.padded)
        images = dataset.video(episode, camera, size=size, parts=parts)
        for _, image in zip(range(sum(map(len, parts))), images, strict=True):
            yield image
