"""Immutable files of a store read in ranges: whole blocks, kept on this machine's disk up to a limit.

A block is a file of the folder, named by the digest of the file that it is part of, so it is never wrong and processes
may share the folder. It appears whole, by a rename, and one that a disk has not all of is read again. Which blocks were
used last is told by the files' times; the oldest go when the limit is passed. Where the folder can't be used, blocks
come from the store alone.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from robolift import storage
from robolift.errors import DataError

BLOCK_BYTES = 1 << 20
AHEAD = 8
"""Blocks that are read ahead of one that is read in order: 8 MB in a request, which hides the store's delay."""
LONGEST = 16
"""Most blocks of one request; several requests are under way at once."""
SWEEPS = 16
"""The limit is looked after at first, and whenever this reader has added this part of it."""

Block = tuple[str, int]


@dataclass(frozen=True, kw_only=True)
class StoredFile:
    """A file of a store that never changes: its address and its length in bytes."""

    uri: str
    size: int


@dataclass(frozen=True, kw_only=True)
class Span:
    """Consecutive bytes of a file, which is named by its digest."""

    digest: str
    first: int
    length: int


class BlockReader:
    """Reads spans of files, from the folder of blocks or else from the store; for one thread at a time."""

    def __init__(self, files: Mapping[str, StoredFile], folder: Path, *, limit_bytes: int) -> None:
        """Read nothing yet; what is too much in the folder goes.

        Args:
            files: The files, by digest.
            folder: Folder of blocks on this machine; other processes may use it too.
            limit_bytes: About how many bytes of blocks stay in it.
        """
        self._files = files
        self._folder = folder
        self._limit = limit_bytes
        self._added = 0
        self._before: dict[str, set[Block]] = {}
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
        self._sweep()

    def read(self, spans: Sequence[Span]) -> list[np.ndarray]:
        """Return the bytes of each span, (length,) uint8.

        Raises:
            DataError: If a file is gone, may not be read or is shorter than was said.
        """
        wanted = sorted({(span.digest, number) for span in spans for number in self._numbers(span)})
        held = {block: found for block in wanted if (found := self._kept(block)) is not None}
        held.update(self._fetch([block for block in wanted if block not in held]))
        self._before |= {digest: set(blocks) for digest, blocks in groupby(wanted, key=lambda block: block[0])}
        return [self._cut(span, held) for span in spans]

    def _numbers(self, span: Span) -> range:
        return range(span.first // BLOCK_BYTES, -(-(span.first + span.length) // BLOCK_BYTES))

    def _cut(self, span: Span, held: Mapping[Block, np.ndarray]) -> np.ndarray:
        parts = [held[span.digest, number] for number in self._numbers(span)]
        whole = parts[0] if len(parts) == 1 else np.concatenate(parts)
        first = span.first % BLOCK_BYTES
        return whole[first : first + span.length]

    def _path(self, block: Block) -> Path:
        return self._folder / f"{block[0]}.{block[1]}"

    def _kept(self, block: Block) -> np.ndarray | None:
        """Return a block from the folder, None if it isn't there (any more), not whole or can't be read."""
        digest, number = block
        path = self._path(block)
        with suppress(OSError):  # a block of another user's or of a read-only disk keeps its time
            os.utime(path)
        try:
            found = np.fromfile(path, np.uint8)
        except OSError:
            return None
        return found if len(found) == min(BLOCK_BYTES, self._files[digest].size - number * BLOCK_BYTES) else None

    def _fetch(self, missing: Sequence[Block]) -> dict[Block, np.ndarray]:
        """Read blocks from the store, and further ones of files that are read in order; keep all of them."""
        runs = self._runs(missing)
        files = [self._files[digest] for digest, _, _ in runs]
        firsts = [first * BLOCK_BYTES for _, first, _ in runs]
        ends = [min(end * BLOCK_BYTES, file.size) for (_, _, end), file in zip(runs, files, strict=True)]
        found: dict[Block, np.ndarray] = {}
        contents = storage.read_ranges([file.uri for file in files], firsts, ends) if runs else []
        for (digest, number, _), file, first, end, content in zip(runs, files, firsts, ends, contents, strict=True):
            if len(content) != end - first:
                raise DataError(
                    f"the file ends at byte {first + len(content)}",
                    where=file.uri,
                    expected=f"{file.size} bytes",
                    mend="delete the frame cache and pack it again",
                )
            pieces = np.frombuffer(content, np.uint8)
            for place in range(0, len(pieces), BLOCK_BYTES):
                found[digest, number + place // BLOCK_BYTES] = pieces[place : place + BLOCK_BYTES]
        for block, piece in found.items():
            self._keep(block, piece)
        return found

    def _runs(self, missing: Sequence[Block]) -> list[tuple[str, int, int]]:
        """Return (digest, first block, end) of what to read: neighbours together, and ahead where reading is in order.

        A block is read in order if the one before it was wanted by the call that last read the file.
        """
        wanted = set(missing)
        for digest, number in missing:
            if (digest, number - 1) in self._before.get(digest, ()):
                blocks = -(-self._files[digest].size // BLOCK_BYTES)
                later = [(digest, number + step) for step in range(1, AHEAD + 1) if number + step < blocks]
                wanted.update(block for block in later if not os.path.exists(self._path(block)))
        runs: list[tuple[str, int, int]] = []
        for digest, number in sorted(wanted):
            if runs and runs[-1][0] == digest and runs[-1][2] == number and number - runs[-1][1] < LONGEST:
                runs[-1] = (digest, runs[-1][1], number + 1)
            else:
                runs.append((digest, number, number + 1))
        return runs

    def _keep(self, block: Block, content: np.ndarray) -> None:
        """Write a block into the folder; a full disk makes reading slower, not wrong."""
        path = self._path(block)
        partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        with suppress(OSError):
            try:
                content.tofile(partial)
                os.replace(partial, path)
            finally:
                partial.unlink(missing_ok=True)
        self._added += len(content)
        if self._added > self._limit // SWEEPS:
            self._added = 0
            self._sweep()

    def _sweep(self) -> None:
        """Remove the blocks that were used longest ago, down to the limit."""
        found = []
        with suppress(OSError):
            for entry in os.scandir(self._folder):
                with suppress(FileNotFoundError):  # another process sweeps too
                    found.append((entry.stat().st_mtime_ns, entry.stat().st_size, entry.path))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= self._limit:
                return
            with suppress(OSError):
                Path(path).unlink(missing_ok=True)
            total -= size
