"""Reads a replay buffer that torchrl left on disk, with NumPy alone.

A ``TensorDictReplayBuffer`` over a ``LazyMemmapStorage`` is a folder of ``<key>.memmap`` files: plain arrays of
``capacity`` rows in C order, little-endian, sparse where nothing was written. ``meta.json`` names shape and dtype of
each; nested keys are folders with a ``meta.json`` of their own (``next/done.memmap``). ``index.memmap`` holds the
number of each row and is written last: a row whose index is not its number was never finished. (A write that failed
over rows that were full before leaves no such trace.) Checked with torchrl 0.14.1 and tensordict 0.14.3, byte for byte:
``tests/unit/replay_buffer.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from robolift import storage
from robolift.errors import DataError, UsageError

META_FILE = "meta.json"
INDEX = "index"
DTYPES: dict[str, np.dtype[Any]] = {
    f"torch.{name}": np.dtype(code)
    for name, code in (
        *(("uint8", "u1"), ("int8", "i1"), ("int16", "<i2"), ("int32", "<i4"), ("int64", "<i8"), ("bool", "?")),
        *(("float16", "<f2"), ("float32", "<f4"), ("float64", "<f8")),
    )
}

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, kw_only=True)
class Leaf:
    """One key of the buffer: ``shape`` begins with the capacity."""

    uri: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def row_bytes(self) -> int:
        """How many bytes a row has."""
        return int(np.prod(self.shape[1:], dtype=np.int64)) * self.dtype.itemsize


class ReplayBuffer:
    """A buffer on disk, open for reading.

    Attributes:
        uri: Its folder.
        leaves: What it holds, by key; nested keys are joined with ``/``.
        capacity: Rows there is room for.
    """

    def __init__(self, uri: str, leaves: Mapping[str, Leaf]) -> None:
        self.uri = uri
        self.leaves = dict(leaves)
        self.capacity = leaves[INDEX].shape[0]

    @classmethod
    def open(cls, uri: str) -> ReplayBuffer:
        """Read what the folder holds; no row is read.

        Raises:
            DataError: If it is no replay buffer, a file is not as ``meta.json`` says, or keys differ in rows.
        """
        uri = storage.normalize(uri)
        leaves = _leaves(uri, "")
        if INDEX not in leaves or leaves[INDEX].dtype != np.int64:
            raise DataError(
                "the folder has no index of rows",
                where=uri,
                expected=f"{INDEX}.memmap of int64, as a TensorDictReplayBuffer writes it",
                mend="give the scratch_dir of its LazyMemmapStorage",
            )
        capacity = leaves[INDEX].shape[0]
        for name, leaf in leaves.items():
            if leaf.shape[0] != capacity:
                raise DataError(
                    f"{name} has {leaf.shape[0]} rows, {INDEX} {capacity}", where=uri, expected="one number"
                )
            size = (storage.info(leaf.uri) or {}).get("size")
            if size != capacity * leaf.row_bytes:
                raise DataError(
                    f"{name} has {'no file' if size is None else f'{size} bytes'}",
                    where=leaf.uri,
                    expected=f"{capacity} rows of {leaf.row_bytes} bytes",
                    mend="copy the whole folder of the buffer",
                )
        return cls(uri, leaves)

    def leaf(self, name: str) -> Leaf:
        """Return what is known of a key.

        Raises:
            UsageError: If there is none of that name.
        """
        if name not in self.leaves:
            raise UsageError(f"no key {name} in {self.uri}; it has: {', '.join(sorted(self.leaves))}")
        return self.leaves[name]

    def rows(self, name: str, start: int, stop: int) -> Array:
        """Return rows ``start`` to ``stop`` of a key, (stop - start, ...) in its own dtype.

        Raises:
            UsageError: If there is no such key.
        """
        leaf = self.leaf(name)
        with storage.open_file(leaf.uri) as file:
            file.seek(start * leaf.row_bytes)
            content = file.read((stop - start) * leaf.row_bytes)
        return np.frombuffer(content, leaf.dtype).reshape(stop - start, *leaf.shape[1:])

    def scalars(self, name: str, stop: int) -> Array:
        """Return the first ``stop`` rows of a key of one number a row, (stop,); (rows, 1) counts as such.

        Raises:
            UsageError: If there is no such key.
            DataError: If its rows hold more.
        """
        values = self.rows(name, 0, stop)
        if values.size != stop:
            raise DataError(f"{name} is {values.shape[1:]} in each row", where=self.uri, expected="one number")
        return values.reshape(stop)

    def finished(self, marker: str) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Return which rows were written to the end, up to the last one that anything was written to, (N,) bool.

        Row 0 of an untouched buffer looks written, as its index is 0: it counts if row 1 does.

        Args:
            marker: Key whose rows are not 0 once something was written there, be it by a write that failed.
        """
        index = self.scalars(INDEX, self.capacity)
        finished = np.asarray(index == np.arange(self.capacity))
        if self.capacity > 1:
            finished[0] &= finished[1]
        touched = np.flatnonzero(finished | (self.scalars(marker, self.capacity) != 0))
        return finished[: touched[-1] + 1] if len(touched) else finished[:0]


def _leaves(folder: str, prefix: str) -> dict[str, Leaf]:
    """Return the keys of a folder and of those inside it."""
    uri = storage.join(folder, META_FILE)
    try:
        meta = storage.read_json(uri)
    except DataError as error:
        raise DataError(
            f"no replay buffer lies there: {error.problem}",
            where=uri,
            expected="the folder that LazyMemmapStorage wrote, with meta.json and a .memmap file a key",
            mend="give its scratch_dir, such as tmp/online_rl_auto_data",
        ) from error
    found: dict[str, Leaf] = {}
    for name, facts in meta.items():
        if not isinstance(facts, dict):
            continue  # shape, device and _type of the whole
        if facts.get("type") == "TensorDict":
            found |= _leaves(storage.join(folder, name), f"{prefix}{name}/")
        elif facts.get("dtype") not in DTYPES or facts.get("is_nested") or not facts.get("shape"):
            raise DataError(
                f"key {prefix}{name} is stored as {facts}", where=uri, expected=f"one of {', '.join(DTYPES)}"
            )
        else:
            uri_of = storage.join(folder, f"{name}.memmap")
            found[prefix + name] = Leaf(uri=uri_of, dtype=DTYPES[facts["dtype"]], shape=tuple(facts["shape"]))
    return found
