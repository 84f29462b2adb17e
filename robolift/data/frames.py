"""The pictures of a training run: decoded once into one memory-mapped array, or again whenever they are needed.

Random access into video costs milliseconds a sample, into the array microseconds; building it is one sequential pass.
Where large pictures of many hours don't fit a disk, they are decoded batch by batch; the bytes are the same.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from robolift import storage
from robolift.data import letterbox
from robolift.data.dataset import Dataset
from robolift.errors import DataError, UsageError
from robolift.logging import progress


def pack_frames(
    dataset: Dataset,
    cameras: Sequence[str],
    *,
    size: tuple[int, int],
    folder: Path,
    num_workers: int = 1,
    padded: bool = False,
) -> np.memmap:
    """Decode all frames of some cameras into one array on disk, or open the array if an earlier call made it.

    Each video is decoded once, in order, straight to the target size; memory holds a frame at a time. The file appears
    under its final name only when it is complete, so a killed call leaves nothing that looks finished, and several
    processes may call this for one folder.

    Args:
        dataset: The dataset.
        cameras: Its cameras in the order wanted.
        size: (height, width) of the packed images.
        folder: Local folder for the file; its name is derived from dataset, cameras and size.
        num_workers: Videos decoded side by side; the bytes don't depend on it.
        padded: Whether images keep their shape and black fills the rest, instead of being stretched.

    Returns:
        (num_frames, num_cameras, H, W, 3) uint8 memory map, read-only, rows in the order of ``dataset.frames``.

    Raises:
        UsageError: If no camera is asked for, one twice, the size is not positive, or the disk has too little room.
        DataError: If a camera or a frame is missing, or a video unreadable.
    """
    _check(dataset, cameras, size)
    identity: dict[str, object] = {"dataset": dataset.uri, "cameras": list(cameras), "size": list(size)}
    if padded:
        identity["padded"] = True
    path = folder / f"frames-{storage.digest_of(identity)}.npy"
    shape = (dataset.num_frames, len(cameras), *size, 3)
    if path.exists():
        return _open(path, shape)
    folder.mkdir(parents=True, exist_ok=True)
    _check_room(math.prod(shape), folder)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        packed = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape)
        _fill(packed, dataset, cameras, num_workers, padded=padded)
        packed.flush()
        del packed
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return _open(path, shape)


def iterate(
    dataset: Dataset,
    episode: int,
    camera: str,
    *,
    size: letterbox.Size,
    padded: bool,
    parts: Iterable[range] | None = None,
) -> Iterator[np.ndarray]:
    """Yield an episode's frames of one camera in order, (*size, 3) uint8, stretched or on black; see pack_frames.

    ``parts`` are ascending ranges of its frames, all by default.
    """
    decoded = _decoded_size(dataset, episode, camera, size, padded=padded)
    for image in dataset.video(episode, camera, size=decoded, parts=parts):
        yield letterbox.on_black(image, size)


class Frames(Protocol):
    """The pictures of a dataset by row, from wherever they come."""

    def __getitem__(self, rows: np.ndarray, /) -> np.ndarray:
        """Return (B, K, H, W, 3) uint8 of (B,) rows."""
        ...


@dataclass(frozen=True, kw_only=True)
class DecodedFrames:
    """The frames that :func:`pack_frames` packs, decoded when they are asked for; arguments and errors are the same.

    Videos whose keyframes lie close together are quick to look into: LeRobot's have one every second frame.
    """

    dataset: Dataset
    cameras: Sequence[str]
    size: letterbox.Size
    num_workers: int = 1
    padded: bool = False

    def __post_init__(self) -> None:
        _check(self.dataset, self.cameras, self.size)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Return (B, K, H, W, 3) uint8 of (B,) rows of ``dataset.frames``, in any order and with repetitions."""
        found = np.empty((len(rows), len(self.cameras), *self.size, 3), np.uint8)
        episodes = np.searchsorted(self.dataset.starts, rows, side="right") - 1

        def decode(job: tuple[int, int, letterbox.Size]) -> None:
            episode, position, size = job
            (places,) = np.nonzero(episodes == episode)
            frames = rows[places] - self.dataset.starts[episode]
            images = self.dataset.images(episode, self.cameras[position], frames, size=size)
            for place, image in zip(places, images, strict=True):
                found[place, position] = letterbox.on_black(image, self.size)

        # The sizes are asked for here, which opens each source before threads do.
        jobs = [
            (episode, position, _decoded_size(self.dataset, episode, camera, self.size, padded=self.padded))
            for episode in np.unique(episodes).tolist()
            for position, camera in enumerate(self.cameras)
        ]
        with ThreadPoolExecutor(max_workers=self.num_workers) as pool:
            for _ in pool.map(decode, jobs):
                pass
        return found


def _decoded_size(dataset: Dataset, episode: int, camera: str, size: letterbox.Size, *, padded: bool) -> letterbox.Size:
    return letterbox.inner_size(dataset.image_size(camera, episode), size) if padded else size


def _check_room(needed: int, folder: Path) -> None:
    """Refuse what the disk has no room for: a memory map that outgrows it kills the process without a word."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UsageError(
            f"decoded frames need {needed} bytes and {folder} has {free} free; set TMPDIR to a folder with more room, "
            "take fewer cameras, or for a policy of pi0.5 set frame_cache: none: each batch is decoded when it is due"
        )


def _check(dataset: Dataset, cameras: Sequence[str], size: tuple[int, int]) -> None:
    missing = [camera for camera in cameras if camera not in dataset.cameras]
    if missing:
        raise DataError(
            f"the dataset has no camera {', '.join(missing)}",
            where=dataset.uri,
            expected=f"among {', '.join(dataset.cameras) or '(it has none)'}",
        )
    if not cameras or len(set(cameras)) != len(cameras):
        raise UsageError(f"cameras to pack are {list(cameras)}, expected at least one, each once")
    if min(size) < 1:
        raise UsageError(f"images can't be packed at {size[0]}x{size[1]}")


def _open(path: Path, shape: tuple[int, ...]) -> np.memmap:
    packed: np.memmap = np.load(path, mmap_mode="r")
    if packed.shape != shape:
        raise DataError(f"frame cache of shape {packed.shape}", where=str(path), expected=str(shape), mend="delete it")
    return packed


def _fill(packed: np.ndarray, dataset: Dataset, cameras: Sequence[str], num_workers: int, *, padded: bool) -> None:
    """Decode every video into its own rows."""
    outer: letterbox.Size = (packed.shape[2], packed.shape[3])
    dataset.video(0, cameras[0])  # opens the first source before threads ask for it

    def decode(job: tuple[int, int]) -> None:
        episode, position = job
        first, last = int(dataset.starts[episode]), int(dataset.starts[episode + 1])
        row = first
        for image in iterate(dataset, episode, cameras[position], size=outer, padded=padded):
            packed[row, position] = image
            row += 1
        if row != last:
            raise DataError(
                f"{cameras[position]} has {row - first} frames",
                where=f"episode {episode}",
                expected=f"{last - first}, one a row",
            )

    # Camera by camera inside an episode, so that the pages being written stay close together.
    jobs = [(episode, position) for episode in range(dataset.num_episodes) for position in range(len(cameras))]
    with ThreadPoolExecutor(max_workers=num_workers) as pool:
        running = pool.map(decode, jobs)
        try:
            for _ in progress(running, total=len(jobs), what="pack frames", unit="video"):
                pass
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
