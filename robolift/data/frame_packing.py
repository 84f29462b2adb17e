"""Fills a frame cache: every video decoded once, in order, by several processes, and what is done survives a kill.

The work is cut into parts of consecutive whole episodes before it begins, by the frames' number and the size that
pictures are known to have, so that the shards' bytes depend on neither the processes nor where an earlier run was cut
off. A part is one shard, or several if its pictures turn out larger.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import numpy as np

from robolift import manifest, storage
from robolift.data.dataset import Dataset
from robolift.data.frame_cache import FACTS_FILE, INDEX_FILE, SHARDS, CacheFacts, View, index_dtype
from robolift.data.frame_coding import Coding
from robolift.data.frame_workers import each
from robolift.data.frames import check, iterate
from robolift.errors import DataError, UsageError
from robolift.logging import progress

Shards = list[tuple[str, int]]
"""(digest, bytes) of each."""
Part = tuple[Shards, bytes]
"""Shards, and the index of their frames, in which they are counted from the part's first."""

PARTS = "parts"
LARGEST = 2
"""A shard is closed at this many times the size that was planned."""


@dataclass(frozen=True, kw_only=True)
class Packing:
    """What is packed, how, and where finished parts are put; all that a process needs to know.

    Attributes:
        dataset_uri: Output folder of import_dataset.
        view: What the pictures are.
        coding: What bytes they become.
        shard_bytes: About how large a shard is.
        folder: Local folder of the cache.
    """

    dataset_uri: str
    view: View
    coding: Coding
    shard_bytes: int
    folder: Path


def pack(packing: Packing, *, work_uri: str, num_workers: int) -> CacheFacts:
    """Write a frame cache into ``packing.folder``; parts that an earlier call kept below ``work_uri`` are taken over.

    Args:
        packing: What, and how.
        work_uri: Where finished parts are kept for a later call with the same packing.
        num_workers: Processes that decode; the bytes don't depend on it.

    Raises:
        UsageError: If a camera is named twice, a size is not positive, or the disk has too little room.
        DataError: If a camera or frame is missing, or a video unreadable; nothing unfinished looks finished.
    """
    dataset = Dataset.open(manifest.load(packing.dataset_uri))
    empty = CacheFacts(
        view=packing.view, coding=packing.coding, num_frames=dataset.num_frames, index=("", 0), shards=()
    )
    facts = empty
    if packing.view.cameras:
        check(dataset, packing.view.cameras, packing.view.size)
        kept = Kept(work_uri=work_uri, folder=packing.folder)
        facts = _joined(empty, packing, dataset.starts, kept, num_workers)
    storage.write_bytes(str(packing.folder / FACTS_FILE), storage.to_json_bytes(facts.to_dict()))
    return facts


def plan_parts(starts: np.ndarray, packing: Packing) -> list[range]:
    """Return the episodes of each part: as many as fit into a shard by the pictures' usual size, but at least one."""
    most = packing.shard_bytes / _bytes_per_frame(packing)
    parts, first = [], 0
    while first < len(starts) - 1:
        end = int(np.searchsorted(starts, starts[first] + most, side="right")) - 1
        parts.append(range(first, max(end, first + 1)))
        first = parts[-1].stop
    return parts


def _joined(empty: CacheFacts, packing: Packing, starts: np.ndarray, kept: Kept, num_workers: int) -> CacheFacts:
    """Make what is missing, write the index of the whole and return its facts.

    Nothing is read back from where parts are kept: another call may do the same work, and who is done first removes it.
    """
    packing.folder.mkdir(parents=True, exist_ok=True)
    parts = plan_parts(starts, packing)
    _check_room(packing, starts, parts, kept)
    rows = [slice(int(starts[episodes.start]), int(starts[episodes.stop])) for episodes in parts]
    path = packing.folder / INDEX_FILE
    dtype = index_dtype(len(empty.view.cameras))
    whole = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=(empty.num_frames,))
    made: dict[int, Shards] = {}
    for number, (shards, index) in _made(packing, parts, kept, num_workers):
        whole[rows[number]] = np.frombuffer(index, dtype)
        made[number] = shards
    joined: Shards = []
    for number, some in enumerate(rows):
        whole["shard"][some] += len(joined)
        joined += made[number]
    whole.flush()
    del whole
    return replace(empty, index=(storage.sha256_file(path), path.stat().st_size), shards=tuple(joined))


def _check_room(packing: Packing, starts: np.ndarray, parts: Sequence[range], kept: Kept) -> None:
    """Refuse now what would fill the disk in the middle; parts that lie on it already take no more of it."""
    there = {number for number in range(len(parts)) if kept.on_disk and kept.has(number)}
    frames = sum(int(starts[p.stop] - starts[p.start]) for number, p in enumerate(parts) if number not in there)
    needed = int(frames * _bytes_per_frame(packing))
    free = shutil.disk_usage(packing.folder).free
    if needed > free:
        view, coding = packing.view, packing.coding.format
        smaller = "jpeg, a twelfth of raw's bytes, or " if coding != "jpeg" else ""
        raise UsageError(
            f"packing {frames} frames ({view}) as {coding} takes about {needed / 1e9:.2f} GB, and {packing.folder} has "
            f"{free / 1e9:.2f} GB free; set format: {smaller}none, which packs nothing (of a run "
            "stages.pack_frames.format), or give it more room: an output_root on another disk, or TMPDIR where outputs "
            "go to a store"
        )


def _bytes_per_frame(packing: Packing) -> float:
    return packing.coding.estimate(packing.view.size) * len(packing.view.cameras)


def _made(packing: Packing, parts: Sequence[range], kept: Kept, num_workers: int) -> Iterator[tuple[int, Part]]:
    """Yield the number of every part and what it is, taken over or made now."""
    jobs = {}
    for number, episodes in enumerate(parts):
        if (taken := kept.take(number)) is None:
            jobs[number] = episodes
        else:
            yield number, taken
    working = each(PartMaker(packing), jobs, num_workers=num_workers)
    for number, part in progress(working, total=len(jobs), what="pack frames", unit="part"):
        kept.add(number, *part)
        yield number, part


@dataclass(frozen=True, kw_only=True)
class Kept:
    """Finished parts where a later run finds them.

    Attributes:
        work_uri: The place.
        folder: Local folder of the cache, in which their shards lie or come to lie.
    """

    work_uri: str
    folder: Path

    def add(self, number: int, shards: Shards, index: bytes) -> None:
        """Keep a part, unless another call that was done first removes the place; what says so is written last."""
        try:
            for digest, _ in shards:
                storage.duplicate(str(self.folder / SHARDS / digest), self._shard(digest))
            storage.write_bytes(self._file(number, "index"), index)
            storage.write_bytes(self._file(number, "json"), storage.to_json_bytes(shards))
        except (FileNotFoundError, UsageError) as error:
            if not isinstance(error.__cause__ or error, FileNotFoundError):
                raise

    def take(self, number: int) -> Part | None:
        """Return a kept part, whose shards are in the folder then; None if it wasn't finished or is damaged."""
        if not self.has(number):
            return None
        try:
            shards = [(digest, size) for digest, size in storage.read_json(self._file(number, "json"))]
            for digest, _ in shards:
                storage.duplicate(self._shard(digest), str(self.folder / SHARDS / digest))
            index = storage.read_bytes(self._file(number, "index"))
        except (FileNotFoundError, DataError):  # another call was done first
            return None
        whole = True
        for digest in {digest for digest, _ in shards}:
            path = self.folder / SHARDS / digest
            if storage.sha256_file(path) != digest:  # power was lost before the disk had it all
                path.unlink()
                storage.remove(self._shard(digest))
                whole = False
        return (shards, index) if whole else None

    def has(self, number: int) -> bool:
        """Tell whether a part is kept."""
        return storage.exists(self._file(number, "json"))

    @property
    def on_disk(self) -> bool:
        """Whether parts are kept on a disk of this machine, where taking one over is a link."""
        return storage.local_path(self.work_uri) is not None

    def _shard(self, digest: str) -> str:
        return storage.join(self.work_uri, SHARDS, digest)

    def _file(self, number: int, suffix: str) -> str:
        return storage.join(self.work_uri, PARTS, f"{number}.{suffix}")


class PartMaker:
    """Makes parts; one a process, which opens the dataset for itself."""

    def __init__(self, packing: Packing) -> None:
        self._packing = packing
        self._dataset: Dataset | None = None

    def __call__(self, episodes: range) -> Part:
        """Decode a part's episodes into shards; return those and the part's index.

        Raises:
            DataError: If a frame is missing or a video unreadable.
        """
        packing = self._packing
        self._dataset = self._dataset or Dataset.open(manifest.load(packing.dataset_uri))
        with ShardWriter(packing) as writer:
            for episode in episodes:
                self._add(writer, self._dataset, episode)
            return writer.finish()

    def _add(self, writer: ShardWriter, dataset: Dataset, episode: int) -> None:
        view = self._packing.view
        videos = [iterate(dataset, episode, camera, size=view.size, padded=view.padded) for camera in view.cameras]
        count = 0
        for pictures in zip(*videos, strict=True):
            writer.add(pictures)
            count += 1
        length = int(dataset.starts[episode + 1] - dataset.starts[episode])
        if count != length:
            raise DataError(
                f"the videos have {count} frames", where=f"episode {episode}", expected=f"{length}, one a row"
            )


class ShardWriter:
    """Writes frames into shards one after the other; a context manager, which leaves none unfinished."""

    def __init__(self, packing: Packing) -> None:
        view = packing.view
        self._folder = packing.folder / SHARDS
        self._most = packing.shard_bytes * LARGEST
        self._coder = packing.coding.coder(view.size)
        self._dtype = index_dtype(len(view.cameras))
        self._index = bytearray()
        self._shards: Shards = []
        self._file: IO[bytes] | None = None
        self._partial = self._folder / f".{secrets.token_hex(8)}"
        self._digest = hashlib.sha256()
        self._written = 0
        self._folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()
            self._partial.unlink(missing_ok=True)

    def add(self, pictures: Sequence[np.ndarray]) -> None:
        """Write the pictures of the next frame, (H, W, 3) uint8 for each camera."""
        contents = [self._coder.encode(picture) for picture in pictures]
        length = sum(map(len, contents))
        if self._file is not None and self._written + length > self._most:
            self._close()
        if self._file is None:
            self._file = self._partial.open("wb")
        row = (len(self._shards), [len(content) for content in contents], self._written)
        self._index += np.array(row, self._dtype).tobytes()
        for content in contents:
            self._file.write(content)
            self._digest.update(content)
        self._written += length

    def finish(self) -> Part:
        """Finish the last shard; return (digest, bytes) of all, and the frames' index."""
        if self._file is not None:
            self._close()
        return self._shards, bytes(self._index)

    def _close(self) -> None:
        assert self._file is not None
        self._file.flush()
        os.fsync(self._file.fileno())  # what says that a part is finished must not reach the disk before the part
        self._file.close()
        name = self._digest.hexdigest()
        os.replace(self._partial, self._folder / name)
        self._shards.append((name, self._written))
        self._file, self._digest, self._written = None, hashlib.sha256(), 0
