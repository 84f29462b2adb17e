"""A frame cache: all pictures of a dataset that somebody will ask for, once decoded, in files of whole frames.

``shards/<sha256>`` hold the pictures one after the other, frame by frame and in a frame camera by camera; ``index.npy``
says of every frame in which shard it begins, where, and how long each picture is, so any picture is found at once
whatever the number of frames. ``frames.json`` says what the pictures are.

On this machine's disks the files are mapped into memory. On a store they are read in ranges, see
:mod:`robolift.data.frame_blocks`.
"""

from __future__ import annotations

import mmap
import os
import stat
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from robolift import storage
from robolift.data.frame_blocks import BlockReader, Span, StoredFile
from robolift.data.frame_coding import Coding, Size
from robolift.errors import DataError, UsageError
from robolift.logging import get_logger
from robolift.manifest import Manifest

FACTS_FILE, INDEX_FILE, SHARDS = "frames.json", "index.npy", "shards"
FOLDER_VARIABLE, LIMIT_VARIABLE = "ROBOLIFT_FRAME_BLOCKS", "ROBOLIFT_FRAME_BLOCKS_MB"
DEFAULT_LIMIT_MB = 8192
HELD_BYTES = 64_000_000
"""Of mapped files that are read in order, after which they are let go."""


@dataclass(frozen=True, kw_only=True)
class View:
    """How a consumer looks at a dataset.

    Attributes:
        cameras: Camera keys, in order.
        size: (height, width) of the pictures.
        padded: Whether they keep their shape and black fills the rest, instead of being stretched.
    """

    cameras: tuple[str, ...]
    size: Size
    padded: bool

    def __str__(self) -> str:
        layout = "padded with black" if self.padded else "stretched"
        return f"{', '.join(self.cameras) or 'no camera'} at {self.size[0]}x{self.size[1]}, {layout}"


@dataclass(frozen=True, kw_only=True)
class CacheFacts:
    """What frames.json holds.

    Attributes:
        view: What the pictures are.
        coding: As what bytes they lie there.
        num_frames: How many frames there are, all of the dataset.
        index: (digest, bytes) of the index; empty digest without cameras.
        shards: (digest, bytes) of the shards, in the order of the frames.
    """

    view: View
    coding: Coding
    num_frames: int
    index: tuple[str, int]
    shards: tuple[tuple[str, int], ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document."""
        return asdict(self)

    @classmethod
    def read(cls, manifest: Manifest) -> CacheFacts:
        """Read the facts of a finished frame cache."""
        found = storage.read_json(manifest.file(FACTS_FILE))
        view = found["view"]
        return cls(
            view=View(cameras=tuple(view["cameras"]), size=tuple(view["size"]), padded=view["padded"]),
            coding=Coding(**found["coding"]),
            num_frames=found["num_frames"],
            index=tuple(found["index"]),
            shards=tuple((digest, size) for digest, size in found["shards"]),
        )


def index_dtype(num_cameras: int) -> np.dtype[np.void]:
    """Return the row of the index: shard, first byte in it, and the length of each camera's picture."""
    return np.dtype([("shard", "<u4"), ("lengths", "<u4", (num_cameras,)), ("first", "<u8")])


class Files(Protocol):
    """Where the bytes of a cache come from."""

    def read(self, spans: Sequence[Span]) -> Sequence[np.ndarray]:
        """Return the bytes of each span, (length,) uint8."""
        ...


class MappedFiles:
    """Files of this machine's disks, mapped into memory when they are first asked for.

    Who reads in order has what was read let go every so often: it stays with the system, but would be counted as this
    process's memory, up to all of the files. Who reads here and there comes back, and would pay twice for each page.
    """

    def __init__(self, paths: dict[str, Path]) -> None:
        self._paths = paths
        self._mapped: dict[str, np.ndarray] = {}
        self._maps: list[mmap.mmap] = []
        self._held_bytes = 0
        self._last: dict[str, int] = {}

    def read(self, spans: Sequence[Span]) -> list[np.ndarray]:
        """See Files."""
        for span in spans:
            back = span.first < self._last.get(span.digest, 0)
            self._held_bytes = 0 if back else self._held_bytes + span.length
            self._last[span.digest] = span.first
        if self._held_bytes > HELD_BYTES:
            self._held_bytes = 0
            for mapped in self._maps:
                mapped.madvise(mmap.MADV_DONTNEED)
        return [self._cut(span) for span in spans]

    def _cut(self, span: Span) -> np.ndarray:
        mapped, end = self._map(span.digest), span.first + span.length
        if end > len(mapped):
            raise DataError(
                f"the file ends at byte {len(mapped)}",
                where=str(self._paths[span.digest]),
                expected=f"at least {end} bytes",
                mend="delete the frame cache and pack it again",
            )
        return mapped[span.first : end]

    def _map(self, digest: str) -> np.ndarray:
        if digest not in self._mapped:
            with storage.open_file(str(self._paths[digest])) as file:
                content: bytes | mmap.mmap = b""
                if os.fstat(file.fileno()).st_size:  # nothing can't be mapped
                    content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
                    self._maps.append(content)
            self._mapped[digest] = np.frombuffer(content, np.uint8)
        return self._mapped[digest]


class CachedFrames:
    """The frames of a cache by row; opens its files in the process that asks, so it can be sent to another."""

    def __init__(self, uri: str, facts: CacheFacts, cameras: Sequence[str]) -> None:
        """Open nothing yet.

        Args:
            uri: Folder of the cache.
            facts: What it holds.
            cameras: Cameras of it to look through, in this order.
        """
        self.cameras = tuple(cameras)
        self.size = facts.view.size
        self._uri, self._facts = uri, facts
        self._places = [facts.view.cameras.index(camera) for camera in cameras]
        self._row = index_dtype(len(facts.view.cameras))
        self._files: Files | None = None
        self._lock = threading.Lock()  # neither decoder nor files are for two threads at a time
        self._coder = facts.coding.coder(facts.view.size)

    def __reduce__(self) -> tuple[Any, ...]:
        return CachedFrames, (self._uri, self._facts, self.cameras)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Return (B, K, H, W, 3) uint8 of (B,) rows of the dataset, in any order and with repetitions.

        Raises:
            DataError: If a file of the cache is gone or damaged.
        """
        with self._lock:
            return self._read(np.asarray(rows, np.int64))

    def _read(self, rows: np.ndarray) -> np.ndarray:
        entries = self._entries(rows)
        lengths = entries["lengths"].astype(np.int64)
        ends = np.cumsum(lengths, axis=1)
        starts = ends - lengths
        low, high = min(self._places), max(self._places) + 1
        shards = self._facts.shards
        firsts = (entries["first"].astype(np.int64) + starts[:, low]).tolist()
        sizes = (ends[:, high - 1] - starts[:, low]).tolist()
        spans = [
            Span(digest=shards[shard][0], first=first, length=size)
            for shard, first, size in zip(entries["shard"].tolist(), firsts, sizes, strict=True)
        ]
        found = np.empty((len(spans), len(self._places), *self.size, 3), np.uint8)
        cuts = np.stack([starts - starts[:, low : low + 1], ends - starts[:, low : low + 1]], axis=-1)
        cuts = cuts[:, self._places].tolist()
        for pictures, content, places in zip(found, self._opened().read(spans), cuts, strict=True):
            for picture, (first, end) in zip(pictures, places, strict=True):
                self._coder.decode(content[first:end], picture)
        return found

    def _entries(self, rows: np.ndarray) -> np.ndarray:
        """Return the index of (B,) rows."""
        digest, size = self._facts.index
        wrong = rows[(rows < 0) | (rows >= self._facts.num_frames)]
        if len(wrong):
            raise IndexError(f"row {wrong[0]} of {self._facts.num_frames}")
        width = self._row.itemsize
        header = size - self._facts.num_frames * width
        spans = [Span(digest=digest, first=header + row * width, length=width) for row in rows.tolist()]
        return np.frombuffer(b"".join(part.tobytes() for part in self._opened().read(spans)), self._row)

    def _opened(self) -> Files:
        if self._files is None:
            facts = self._facts
            names = {digest: storage.join(SHARDS, digest) for digest, _ in facts.shards} | {facts.index[0]: INDEX_FILE}
            sizes = dict([*facts.shards, facts.index])
            local = storage.local_path(self._uri)
            if local is not None:
                self._files = MappedFiles({digest: local / name for digest, name in names.items()})
            else:
                stored = {
                    digest: StoredFile(uri=storage.join(self._uri, name), size=sizes[digest])
                    for digest, name in names.items()
                }
                self._files = BlockReader(stored, blocks_folder(), limit_bytes=blocks_limit())
        return self._files


def blocks_folder() -> Path:
    """Return where blocks of caches in stores are kept: ROBOLIFT_FRAME_BLOCKS, else a folder of temporary files.

    The latter is made for this user alone: what lies in it is believed.

    Raises:
        UsageError: If another user made it.
    """
    if told := os.environ.get(FOLDER_VARIABLE):
        return Path(told)
    folder = Path(tempfile.gettempdir()) / f"robolift-blocks-{os.getuid()}"
    with suppress(OSError):  # it is there, or blocks won't be kept
        folder.mkdir(mode=0o700)
    with suppress(FileNotFoundError):
        found = folder.lstat()
        if found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode):
            raise UsageError(
                f"{folder}, where blocks of frame caches are kept, is no folder of this user's: remove it, or set "
                f"{FOLDER_VARIABLE} to a folder that nobody else writes to"
            )
    return folder


def blocks_limit() -> int:
    """Return how many bytes of them are kept: ROBOLIFT_FRAME_BLOCKS_MB, else 8 GB.

    Raises:
        UsageError: If it is no number of megabytes.
    """
    told = os.environ.get(LIMIT_VARIABLE) or str(DEFAULT_LIMIT_MB)
    if not told.isdigit():
        raise UsageError(f"{LIMIT_VARIABLE} is {told!r}, expected a whole number of megabytes")
    return int(told) * 1_000_000


def open_cache(manifest: Manifest, view: View, *, num_frames: int) -> CachedFrames | None:
    """Return the frames of a cache as a consumer looks at them, None if it has not all of them.

    A cache of pixels as they were decoded that lacks some is no obstacle: decoded directly they are the same, and that
    is said. JPEG has changed the pixels, and a consumer would not see what it was given the cache for.

    Args:
        manifest: The cache.
        view: What is looked for.
        num_frames: Frames of the dataset.

    Raises:
        UsageError: If a cache of JPEG lacks what is looked for.
        DataError: If the cache is of another number of frames.
    """
    facts = CacheFacts.read(manifest)
    if facts.num_frames != num_frames:
        raise DataError(
            f"the frame cache has {facts.num_frames} frames",
            where=manifest.uri,
            expected=f"{num_frames}, those of the dataset",
            mend="pack the frames of this dataset",
        )
    same = (facts.view.size, facts.view.padded) == (view.size, view.padded)
    if same and set(view.cameras) <= set(facts.view.cameras):
        return CachedFrames(manifest.uri, facts, view.cameras)
    if not facts.coding.lossless and facts.view.cameras:
        raise UsageError(
            f"the frame cache {manifest.uri} holds {facts.view} as JPEG, and wanted are {view}: decoded from video "
            "they would be other pixels; pack the frames that are wanted, pack them as raw or png, or leave out the "
            "input frames"
        )
    if facts.view.cameras:
        get_logger("frames").info(
            "decoded from video: not in the frame cache", wanted=str(view), cached=str(facts.view)
        )
    return None
