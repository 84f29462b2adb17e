"""Files that one of several writers writes: which one, the disk or the store decides."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

from robolift import storage
from robolift.errors import UsageError

NO_HARD_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


def create(uri: str, content: bytes) -> bool:
    """Write one file only if nothing lies there yet: of several processes that try, one succeeds.

    A reader sees nothing or all of it. On a disk a complete temporary file gets its name by a hard link, which fails
    where the name is taken; S3 is asked with ``If-None-Match: *``, Google Cloud Storage with ``ifGenerationMatch=0``.

    A store's client sends a write again whose answer was lost, and is told then that the name is taken: by itself. So
    on a store the same bytes count as this call's, and where writers must be told apart, ``content`` has to do that.

    Returns:
        Whether this call wrote it; False leaves what is there as it is.

    Raises:
        UsageError: If nothing may be written there, or the disk makes no hard links.
    """
    path = storage.local_path(uri)
    if path is None:
        with storage.writable(uri):
            return _create_object(uri, content) or _holds(uri, content)
    with storage.complete(uri, path, content) as temporary:
        return _link(temporary, path)


def _link(temporary: str, path: Path) -> bool:
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in NO_HARD_LINKS:
            raise
        raise UsageError(
            f"{path}: this disk makes no hard links, by which one of several writers wins ({error.strerror}); "
            "choose a folder on another disk, or a store"
        ) from error
    return True


def _holds(uri: str, content: bytes) -> bool:
    fs, remote = storage.filesystem(uri)
    with suppress(FileNotFoundError):
        return bool(fs.cat_file(remote) == content)
    return False


def _create_object(uri: str, content: bytes) -> bool:
    fs, remote = storage.filesystem(uri)
    try:
        fs.pipe_file(remote, content, mode="create")
    except FileExistsError:
        return False
    except OSError as error:
        # Not every server that speaks S3 words the refusal as Amazon's does; the conflict is another writer at work.
        response = getattr(error.__cause__, "response", None) or {}
        if response.get("Error", {}).get("Code") in ("PreconditionFailed", "ConditionalRequestConflict"):
            return False
        raise
    return True
