"""Writes replay buffers as torchrl leaves them on disk, with NumPy alone.

Byte for byte what a ``TensorDictReplayBuffer`` over ``LazyMemmapStorage(capacity, scratch_dir=...)`` writes: torchrl
0.14.1 with tensordict 0.14.3 and torch 2.14.1 on CPU, Python 3.11. :data:`TORCHRL_SHA256` are digests of folders that
these wrote, of the episodes that :func:`torchrl_sample` makes again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

TORCHRL_SHA256 = {
    "part": "6c28b820e2492c7db5abcdeef1818c69680a434fc42e0cc609ea976228d64d41",
    "wrapped": "f17a4f30b60e116fdb0e78ece1c498f57b33265464fac4ac58f932ee7b782b58",
    "torn": "05fd25c2e16000c84bbc4f75fc5976b1d6cc192ac249117d3883cf4fdc4b7baf",
}


class BufferWriter:
    """A buffer on disk; rows go round when it is full."""

    def __init__(self, path: Path, capacity: int) -> None:
        self.path = path
        self.capacity = capacity
        self.cursor = 0
        self.arrays: dict[str, np.ndarray] = {}

    def extend(self, episode: Mapping[str, np.ndarray], *, fails_at: str = "") -> None:
        """Write one episode key by key; ``fails_at`` is the key whose dtype does not match, and where it then stops.

        The cursor moves on all the same, which leaves a hole.
        """
        length = len(next(iter(episode.values())))
        rows = (self.cursor + np.arange(length)) % self.capacity
        self.cursor = int((self.cursor + length) % self.capacity)
        for key, values in {**episode, "index": rows.astype(np.int64)}.items():
            if key == fails_at:
                return
            if key not in self.arrays:
                self.arrays[key] = np.zeros((self.capacity, *values.shape[1:]), values.dtype)
            self.arrays[key][rows] = values

    def close(self) -> Path:
        """Write the files."""
        self._meta("", {key: array for key, array in self.arrays.items() if "/" not in key})
        self._meta("next", {key[5:]: array for key, array in self.arrays.items() if key.startswith("next/")})
        return self.path

    def _meta(self, folder: str, arrays: Mapping[str, np.ndarray]) -> None:
        path = self.path / folder
        path.mkdir(parents=True, exist_ok=True)
        meta: dict[str, Any] = {}
        for key, array in arrays.items():
            (path / f"{key}.memmap").write_bytes(array.tobytes())
            if key == "index":
                meta["next"] = {"type": "TensorDict"}
            dtype = f"torch.{array.dtype.name}"
            meta[key] = {"device": "cpu", "shape": list(array.shape), "dtype": dtype, "is_nested": False}
        meta |= {"shape": [self.capacity], "device": "cpu", "_type": "<class 'tensordict._td.TensorDict'>"}
        (path / "meta.json").write_text(json.dumps(meta, separators=(",", ":")))


def make_episode(number: int, length: int, mode: int, *, size: tuple[int, int] = (4, 5)) -> dict[str, np.ndarray]:
    """Return a segment as online_rl's recorder makes it, with few and small images and numbers that tell it apart."""
    done = np.zeros((length, 1), bool)
    done[-1] = True
    ramp = np.arange(length * 2, dtype=np.float32).reshape(length, 2)
    return {
        "head": (np.arange(length * 3 * size[0] * size[1]) % 251).astype(np.uint8).reshape(length, 3, *size),
        "proprio": ramp + np.float32(number),
        "action": ramp * np.float32(0.5),
        "control_mode": np.full(length, mode, np.int8),
        "episode": np.full(length, number, np.int64),
        "reward": np.zeros(length, np.float32),
        "task_index": np.full((length, 1), 2.0, np.float32),
        "next/done": done,
    }


def write_buffer(path: Path, capacity: int, episodes: Sequence[Mapping[str, np.ndarray]]) -> Path:
    """Write a buffer of these episodes, one after the other."""
    writer = BufferWriter(path, capacity)
    for episode in episodes:
        writer.extend(episode)
    return writer.close()


def torchrl_sample(path: Path, name: str) -> Path:
    """Write again what torchrl wrote: two episodes of 60 rows; four, so that the last goes round; one torn between."""
    writer = BufferWriter(path, 60)
    writer.extend(make_episode(10000, 20, 0))
    writer.extend(make_episode(10001, 15, 1), fails_at="reward" if name == "torn" else "")
    if name == "wrapped":
        writer.extend(make_episode(20000, 18, 0))
        writer.extend(make_episode(30000, 12, 0))
    if name == "torn":
        writer.extend(make_episode(20000, 5, 0))
    return writer.close()


def tree_sha256(path: Path) -> str:
    """Return a digest of all files of a folder and their names."""
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")):
        if file.is_file():
            digest.update(str(file.relative_to(path)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()
