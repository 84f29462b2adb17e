"""Private folders in which outputs are written before anyone may see them, and how such a folder becomes visible.

A process keeps a lock on its staging folder while it lives, and the kernel drops the lock however the process ends.
So what a killed process left is told from a living one's work without process numbers, which two containers on one
volume share and which not every system can look up.
"""

from __future__ import annotations

import errno
import fcntl
import glob
import os
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Staging:
    """A locked folder.

    Attributes:
        path: The folder.
        lock: Open file descriptor that holds the lock, None once released.
    """

    path: Path
    lock: int | None

    def release(self) -> None:
        """Delete the folder if it is still there and give up the lock; safe to call again."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self.lock is not None:
            os.close(self.lock)
            self.lock = None


def claim(parent: Path, name: str) -> Staging:
    """Make a staging folder for output ``name`` below ``parent``, removing what killed processes left there."""
    parent.mkdir(parents=True, exist_ok=True)
    remove_leavings(parent, name)
    while True:
        path = parent / f".{name}.{secrets.token_hex(4)}"
        path.mkdir()
        lock = _lock(path, blocking=True)
        if lock is not None and path.is_dir():
            return Staging(path, lock)
        if lock is not None:  # another process took it for a leaving before we held the lock
            os.close(lock)


def remove_leavings(parent: Path, name: str) -> None:
    """Remove the staging folders of output ``name`` that no living process holds."""
    for path in parent.glob(f".{glob.escape(name)}.*"):
        lock = _lock(path, blocking=False)
        if lock is not None:
            shutil.rmtree(path, ignore_errors=True)
            os.close(lock)


def rename_into_place(path: Path, target: Path, *, marker: str) -> None:
    """Make ``path`` visible as ``target`` in one step; a finished ``target`` stays, an unfinished one gives way.

    Args:
        path: The folder to publish; gone afterwards.
        target: Its place.
        marker: File that stands in every finished folder.
    """
    while True:
        try:
            path.rename(target)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        else:
            return
        if (target / marker).exists():
            shutil.rmtree(path)
            return
        # Moved aside whole, so that no reader meets a folder that is being deleted file by file.
        aside = path.with_name(f"{path.name}.old")
        target.rename(aside)
        shutil.rmtree(aside)


def _lock(path: Path, *, blocking: bool) -> int | None:
    """Return a descriptor that holds the lock of folder ``path``, None if another process holds it.

    A file system without locks gives a descriptor without one to the owner and nothing to a remover, so there
    nobody's work is ever removed.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX if blocking else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        if blocking:
            return handle
        os.close(handle)
        return None
    return handle
