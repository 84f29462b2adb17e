"""Every byte the product reads or writes goes through here: any fsspec address, published atomically.

A plain path means a local file. ``file://``, ``memory://``, ``s3://`` and ``gs://`` behave alike: on an object store
one object appears whole or not at all; on a disk we write beside the target and rename.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from fsspec.core import url_to_fs

from robolift.errors import DataError

BLOCK_BYTES = 1 << 20


def join(uri: str, *parts: str) -> str:
    """Join an address and relative parts with single slashes."""
    return "/".join([uri.rstrip("/"), *(part.strip("/") for part in parts)])


def normalize(uri: str) -> str:
    """Return ``uri`` with a scheme; a plain path becomes an absolute ``file://`` address."""
    return uri if "://" in uri else f"file://{os.path.abspath(os.path.expanduser(uri))}"


def local_path(uri: str) -> Path | None:
    """Return the path of a local address, None for any other store."""
    uri = normalize(uri)
    return Path(uri.removeprefix("file://")) if uri.startswith("file://") else None


def filesystem(uri: str) -> tuple[Any, str]:
    """Return the fsspec file system of ``uri`` and the path inside it.

    Listings aren't cached: another process publishes while this one waits, and a cached listing would hide that or
    describe bytes that have been replaced.
    """
    return cast("tuple[Any, str]", url_to_fs(normalize(uri), use_listings_cache=False))


def exists(uri: str) -> bool:
    """Tell whether a file or folder is there."""
    fs, path = filesystem(uri)
    return bool(fs.exists(path))


def open_file(uri: str, mode: str = "rb") -> IO[Any]:
    """Open one file for reading; use :func:`write_bytes` to write.

    Raises:
        DataError: If the file is not there, is a folder or may not be read.
    """
    fs, path = filesystem(uri)
    with _readable(uri):
        return cast("IO[Any]", fs.open(path, mode))


@contextmanager
def _readable(uri: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise DataError("file not found", where=uri, mend="check the address and the credentials for it") from error
    except IsADirectoryError as error:
        raise DataError("is a folder", where=uri, expected="the address of a file") from error
    except PermissionError as error:
        raise DataError("may not be read", where=uri, mend="give this account read access to it") from error


def read_bytes(uri: str) -> bytes:
    """Return the content of one file."""
    with open_file(uri) as file:
        return cast("bytes", file.read())


def read_json(uri: str) -> Any:
    """Return the parsed content of one JSON file.

    Raises:
        DataError: If it is missing or not JSON.
    """
    try:
        return json.loads(read_bytes(uri))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"not valid JSON: {error}", where=uri, mend="write the file again") from error


def write_bytes(uri: str, content: bytes) -> None:
    """Write one file so that a reader sees the old bytes or all the new ones, never a part."""
    path = local_path(uri)
    if path is None:
        fs, remote = filesystem(uri)
        fs.pipe_file(remote, content)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def to_json_bytes(document: Any) -> bytes:
    """Return canonical JSON: sorted keys, a newline at the end, NaN refused."""
    return (json.dumps(document, sort_keys=True, indent=1, allow_nan=False, ensure_ascii=False) + "\n").encode()


def list_files(uri: str) -> list[tuple[str, int]]:
    """Return (relative path, bytes) of every file below ``uri``, sorted by path."""
    fs, root = filesystem(uri)
    root = root.rstrip("/")
    found = fs.find(root, detail=True)
    return sorted((name.removeprefix(root).lstrip("/"), int(facts["size"])) for name, facts in found.items())


def remove(uri: str) -> None:
    """Delete a file or a folder; nothing happens when it is not there."""
    fs, path = filesystem(uri)
    if fs.exists(path):
        fs.rm(path, recursive=True)


def upload(path: Path, uri: str) -> None:
    """Copy one local file to ``uri``."""
    target = local_path(uri)
    if target is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            shutil.copyfile(path, temporary)
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
        return
    fs, remote = filesystem(uri)
    fs.put_file(str(path), remote)


@contextmanager
def as_local(uri: str) -> Iterator[Path]:
    """Give a local path with the file's bytes: the file itself when it is local, else a temporary copy.

    Raises:
        DataError: If a remote file is not there or may not be read.
    """
    path = local_path(uri)
    if path is not None:
        yield path
        return
    fs, remote = filesystem(uri)
    with tempfile.TemporaryDirectory(prefix="robolift-") as folder:
        copy = Path(folder) / Path(remote).name
        with _readable(uri):
            fs.get_file(remote, str(copy))
        yield copy


def sha256_file(path: Path) -> str:
    """Return the hex SHA-256 of a local file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def digest_of(document: Any) -> str:
    """Return 16 hex digits that identify a JSON-serializable document."""
    return hashlib.sha256(to_json_bytes(document)).hexdigest()[:16]
