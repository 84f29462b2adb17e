"""The pictures of a run, by row: from a frame cache, from one array that is decoded at its start, or from the videos.

Random access into video costs milliseconds a sample, into a frame cache tenths of one, into the array microseconds.
Where large pictures of many hours don't fit a disk and there is no cache, they are decoded batch by batch. Wherever
pixels come from they are the same, but for those of a cache of JPEG, which are what its encoder made of them.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any, Protocol
from weakref import finalize

import numpy as np

from robolift import staging, storage
from robolift.data import letterbox
from robolift.data.dataset import Dataset
from robolift.data.frame_cache import View, open_cache
from robolift.data.frame_coding import Coder, Coding
from robolift.errors import DataError, UsageError
from robolift.logging import progress
from robolift.manifest import Manifest

PRIVATE = "robolift-frames"
"""Name of the folders in which the array of a run lies."""


class Frames(Protocol):
    """The pictures of a dataset by row, from wherever they come; sent to another process they open their files there.

    Attributes:
        cameras: Camera keys, in order.
        size: (height, width) of the pictures.
    """

    @property
    def cameras(self) -> Sequence[str]: ...  # noqa: D102

    @property
    def size(self) -> letterbox.Size: ...  # noqa: D102

    def __getitem__(self, rows: np.ndarray, /) -> np.ndarray:
        """Return (B, K, H, W, 3) uint8 of (B,) rows, in any order and with repetitions."""
        ...


def open_frames(
    dataset: Dataset,
    cameras: Sequence[str],
    *,
    size: letterbox.Size,
    padded: bool,
    cache: Manifest | None,
    num_workers: int,
    folder: Path | None,
) -> Frames:
    """Return a dataset's pictures: from a frame cache that has them, else decoded into an array or when asked for.

    Args:
        dataset: The dataset.
        cameras: Its cameras in the order wanted.
        size: (height, width) of the pictures.
        padded: Whether they keep their shape and black fills the rest, instead of being stretched.
        cache: A frame cache of the dataset, None if there is none.
        num_workers: Videos decoded side by side.
        folder: Local folder for an array of all frames, decoded now; it loses its name at once and its space with the
            last process that has it. None: each picture is decoded when it is asked for.

    Raises:
        UsageError: If a cache of JPEG has other pictures, a camera is named twice, or the disk has too little room.
        DataError: If a camera or a frame is missing, or a video unreadable.
    """
    check(dataset, cameras, size)
    view = View(cameras=tuple(cameras), size=size, padded=padded)
    found = None if cache is None else open_cache(cache, view, num_frames=dataset.num_frames)
    if found is not None:
        return found
    if folder is None:
        return DecodedFrames(dataset=dataset, cameras=cameras, size=size, num_workers=num_workers, padded=padded)
    private = staging.claim(folder, PRIVATE)
    try:
        array = pack_frames(dataset, cameras, size=size, folder=private.path, num_workers=num_workers, padded=padded)
        return PackedFrames.opened(array, cameras)
    finally:
        private.release()


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
    check(dataset, cameras, size)
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
    decoded = decoded_size(dataset, episode, camera, size, padded=padded)
    for image in dataset.video(episode, camera, size=decoded, parts=parts):
        yield letterbox.on_black(image, size)


class PackedFrames:
    """The array of pack_frames by row. Its file may lose its name: who has it can still send it to another process."""

    def __init__(self, handle: int, offset: int, shape: tuple[int, ...], cameras: Sequence[str]) -> None:
        """Map an open file.

        Args:
            handle: Its descriptor, which is closed with this object.
            offset: Where the pixels begin.
            shape: (N, K, H, W, 3).
            cameras: The K cameras.
        """
        self.cameras = tuple(cameras)
        self.size = (shape[2], shape[3])
        self._handle, self._offset = handle, offset
        finalize(self, os.close, handle)
        with os.fdopen(handle, "rb", closefd=False) as file:
            self._array = np.memmap(file, np.uint8, "r", offset=offset, shape=shape)

    @classmethod
    def opened(cls, array: np.memmap, cameras: Sequence[str]) -> PackedFrames:
        """Open the file of an array once more."""
        return cls(os.open(str(array.filename), os.O_RDONLY), array.offset, array.shape, cameras)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Return (B, K, H, W, 3) uint8 of (B,) rows, in any order and with repetitions."""
        return np.asarray(self._array[rows])

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, (DupFd(self._handle), self._offset, self._array.shape, self.cameras)


def _received(handle: Any, *facts: Any) -> PackedFrames:
    return PackedFrames(handle.detach(), *facts)


@dataclass(frozen=True, kw_only=True)
class DecodedFrames:
    """The frames that :func:`pack_frames` packs, decoded when they are asked for; arguments and errors are the same.

    Videos whose keyframes lie close together are quick to look into: LeRobot's have one every second frame. With a
    ``coding`` the pixels are those of a frame cache of that coding.
    """

    dataset: Dataset
    cameras: Sequence[str]
    size: letterbox.Size
    num_workers: int = 1
    padded: bool = False
    coding: Coding | None = None

    def __post_init__(self) -> None:
        check(self.dataset, self.cameras, self.size)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Return (B, K, H, W, 3) uint8 of (B,) rows of ``dataset.frames``, in any order and with repetitions."""
        found = np.empty((len(rows), len(self.cameras), *self.size, 3), np.uint8)
        episodes = np.searchsorted(self.dataset.starts, rows, side="right") - 1

        def decode(job: tuple[int, int, letterbox.Size]) -> None:
            episode, position, size = job
            (places,) = np.nonzero(episodes == episode)
            frames = rows[places] - self.dataset.starts[episode]
            images = self.dataset.images(episode, self.cameras[position], frames, size=size)
            coder = self.coding.coder(self.size) if self.coding and not self.coding.lossless else None
            for place, image in zip(places, images, strict=True):
                _put(letterbox.on_black(image, self.size), found[place, position], coder)

        # The sizes are asked for here, which opens each source before threads do.
        jobs = [
            (episode, position, decoded_size(self.dataset, episode, camera, self.size, padded=self.padded))
            for episode in np.unique(episodes).tolist()
            for position, camera in enumerate(self.cameras)
        ]
        with ThreadPoolExecutor(max_workers=self.num_workers) as pool:
            for _ in pool.map(decode, jobs):
                pass
        return found


def _put(picture: np.ndarray, into: np.ndarray, coder: Coder | None) -> None:
    """Write a picture, as it comes back from a coder if there is one."""
    if coder is None:
        into[...] = picture
    else:
        coder.decode(np.frombuffer(coder.encode(picture), np.uint8), into)


def decoded_size(dataset: Dataset, episode: int, camera: str, size: letterbox.Size, *, padded: bool) -> letterbox.Size:
    """Return the (height, width) to decode to, so that pictures of ``size`` are stretched or, if ``padded``, fit in."""
    return letterbox.inner_size(dataset.image_size(camera, episode), size) if padded else size


def _check_room(needed: int, folder: Path) -> None:
    """Refuse what the disk has no room for: a memory map that outgrows it kills the process without a word."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UsageError(
            f"decoded frames need {needed} bytes and {folder} has {free} free; set TMPDIR to a folder with more room, "
            "take fewer cameras, or for a policy of pi0.5 set frame_cache: none: each batch is decoded when it is due"
        )


def check(dataset: Dataset, cameras: Sequence[str], size: tuple[int, int]) -> None:
    """Refuse cameras that the dataset doesn't have or that are named twice, and a size of no pixels.

    Raises:
        UsageError: If no camera is asked for, one twice, or the size is not positive.
        DataError: If the dataset lacks a camera.
    """
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
