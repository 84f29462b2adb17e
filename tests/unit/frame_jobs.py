"""Work for processes of their own, and packing without a stage around it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from robolift.data.dataset import Dataset
from robolift.data.frame_cache import CachedFrames, CacheFacts, View
from robolift.data.frame_coding import Coding
from robolift.data.frame_packing import Packing, pack
from robolift.errors import DataError
from robolift.logging import get_logger
from robolift.storage import join


class Reader:
    """Reads rows of frames."""

    def __init__(self, frames: Any) -> None:
        self.frames = frames

    def __call__(self, rows: Any) -> Any:
        return os.getpid(), self.frames.cameras, self.frames.size, self.frames[rows]


def act(job: str) -> str:
    """Do what a job says."""
    if job == "data":
        raise DataError("broken", where="here")
    if job == "bug":
        raise ValueError("a slip")
    if job == "warn":
        get_logger("jobs").warning("a warning")
    if job == "die":
        os._exit(9)
    return job.upper()


def linger(path: str) -> None:
    """Say who this is, and stay."""
    Path(path).write_text(str(os.getpid()))
    time.sleep(600)


def packing(dataset: Dataset, folder: Path, cameras: Any = None, **changes: Any) -> Packing:
    """Return a packing of 20x12 pictures, stretched, as raw, a shard an episode or so."""
    chosen = tuple(dataset.cameras if cameras is None else cameras)
    view = View(cameras=chosen, size=changes.pop("size", (20, 12)), padded=changes.pop("padded", False))
    told = {"coding": Coding(), "shard_bytes": 20_000, **changes}
    return Packing(dataset_uri=dataset.uri, view=view, folder=folder, **told)


def packed(dataset: Dataset, folder: Path, cameras: Any = None, **changes: Any) -> CachedFrames:
    """Pack and open."""
    workers = changes.pop("num_workers", 1)
    told = packing(dataset, folder / "cache", cameras, **changes)
    facts: CacheFacts = pack(told, work_uri=join(str(folder), "work"), num_workers=workers)
    return CachedFrames(str(folder / "cache"), facts, told.view.cameras)
