"""Every byte the product reads or writes goes through here: any fsspec address, published atomically.

A plain path means a local file. ``file://``, ``memory://``, ``s3://`` and ``gs://`` behave alike: on an object store
one object appears whole or not at all; on a disk we write beside the target and rename.
"""

from __future__ import annotations

import errno
import hashlib
import io
import itertools
import json
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, cast

from robolift.errors import DataError, UsageError

BLOCK_BYTES = 1 << 20
JSON_PIECES = 1 << 12


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
    from fsspec.core import url_to_fs  # noqa: PLC0415  (a command that only prints its options opens nothing)

    try:
        return cast("tuple[Any, str]", url_to_fs(normalize(uri), use_listings_cache=False))
    except (ValueError, ImportError) as error:
        raise UsageError(
            f"no store for {uri}: {error}; expected a path or an address of file://, s3://, gs://, memory:// "
            "or another store whose fsspec package is installed"
        ) from error


def exists(uri: str) -> bool:
    """Tell whether a file or folder is there."""
    return info(uri) is not None


def info(uri: str) -> dict[str, Any] | None:
    """Return what the store says of a file or folder (``type``, ``size``, perhaps a hash), None if it is not there.

    Raises:
        DataError: If it may not be read.
    """
    local = local_path(uri)
    with _readable(uri):
        try:
            if local is None:
                fs, path = filesystem(uri)
                return dict(fs.info(path))
            found = local.stat()  # a label stage is planned without fsspec, a tenth of its start
        except (FileNotFoundError, NotADirectoryError):
            return None
    kinds = {stat.S_IFDIR: "directory", stat.S_IFREG: "file"}
    return {"type": kinds.get(stat.S_IFMT(found.st_mode), "other"), "size": found.st_size}


def open_file(uri: str, mode: str = "rb") -> IO[Any]:
    """Open one file for reading; use :func:`write_bytes` to write.

    Raises:
        DataError: If the file is not there, is a folder or may not be read.
    """
    local = local_path(uri)
    with _readable(uri):
        if local is not None:  # a dataset may have a file an episode, and fsspec takes as long as reading one
            return local.open(mode)
        fs, path = filesystem(uri)
        return cast("IO[Any]", fs.open(path, mode))


def open_for_arrow(uri: str) -> IO[Any] | str:
    """Return what Arrow reads a file from: the path of a local one, which it opens faster by itself, or an open file.

    The file of a store fetches what is asked for and nothing ahead of it: ask Arrow to ``pre_buffer``, and each row
    group is one request. A small file is one request as a whole.

    Raises:
        DataError: If the file is not there, is a folder or may not be read.
    """
    local = local_path(uri)
    if local is None:
        with _readable(uri):
            fs, path = filesystem(uri)
            file = cast("IO[Any]", fs.open(path, cache_type="none"))
            if getattr(file, "size", None) is None or file.size > BLOCK_BYTES:  # type: ignore[attr-defined]
                return file
            with file:
                return io.BytesIO(file.read())
    with _readable(uri):
        if local.is_dir():
            raise IsADirectoryError(str(local))
        os.close(os.open(local, os.O_RDONLY))
    return str(local)


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
    except Exception as error:
        if not _lacks_credentials(error):
            raise
        raise DataError(
            f"no credentials to read it with: {error}", where=uri, mend="log in, or set the store's credentials"
        ) from error


@contextmanager
def writable(uri: str) -> Iterator[None]:
    """Turn what a store or disk says where nothing may be written into an error of the caller's.

    Raises:
        UsageError: If ``uri`` is read-only, forbidden, below a file or in no bucket. A full disk is none of these.
    """
    try:
        yield
    except Exception as error:
        refused = isinstance(error, (PermissionError, NotADirectoryError, FileExistsError, FileNotFoundError))
        if not refused and getattr(error, "errno", None) != errno.EROFS and not _lacks_credentials(error):
            raise
        raise UsageError(
            f"{uri} can't be written: {error}; give this account write access, or choose another output_root"
        ) from error


def _lacks_credentials(error: Exception) -> bool:
    # Each store's library has its own classes for this, and none of them may be installed.
    return type(error).__name__.endswith("CredentialsError")


def read_bytes(uri: str) -> bytes:
    """Return the content of one file.

    Raises:
        DataError: If the file is not there, is a folder or may not be read.
    """
    local = local_path(uri)
    if local is None:
        with open_file(uri) as file:
            return cast("bytes", file.read())
    with _readable(uri):
        return local.read_bytes()


def read_ranges(uris: Sequence[str], firsts: Sequence[int], ends: Sequence[int]) -> list[bytes]:
    """Return bytes ``first`` to ``end`` of each file, one or more of one store, which is asked for many at a time.

    Raises:
        DataError: If a file is not there or may not be read.
    """
    with _readable(uris[0]):
        fs, _ = filesystem(uris[0])
        paths = [filesystem(uri)[1] for uri in uris]
        return cast("list[bytes]", fs.cat_ranges(paths, list(firsts), list(ends), on_error="raise"))


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
        with writable(uri):
            fs, remote = filesystem(uri)
            fs.pipe_file(remote, content)
        return
    with complete(uri, path, content) as temporary:
        os.replace(temporary, path)


@contextmanager
def complete(uri: str, path: Path, content: bytes) -> Iterator[str]:
    """Give a temporary file beside ``path`` that holds all of ``content``, to be renamed or linked; removed afterwards.

    Args:
        uri: What errors name.
        path: Where the file is to lie; its folder is made if missing.
        content: Brought to the disk before the file is given.

    Raises:
        UsageError: If nothing may be written there.
    """
    with writable(uri):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        yield temporary
    finally:
        Path(temporary).unlink(missing_ok=True)


def probe(uri: str) -> None:
    """Write and delete a small object below ``uri`` of a store, which says only then that it takes none.

    Raises:
        UsageError: If it can't be written. A disk is not asked: it refuses the first folder anyway.
    """
    if local_path(uri) is None:
        name = join(uri, f".probe-{secrets.token_hex(8)}")  # the pods of a job probe one folder at the same time
        write_bytes(name, b"")
        remove(name)


def to_json_bytes(document: Any) -> bytes:
    """Return canonical JSON: sorted keys, a newline at the end, NaN refused."""
    return b"".join(_json_blocks(document))


def _json_blocks(document: Any) -> Iterator[bytes]:
    """Yield canonical JSON in pieces: the list of a large dataset's files need not be in memory once more as text."""
    pieces = json.JSONEncoder(sort_keys=True, indent=1, allow_nan=False, ensure_ascii=False).iterencode(document)
    while some := list(itertools.islice(pieces, JSON_PIECES)):
        yield "".join(some).encode()
    yield b"\n"


def list_entries(uri: str) -> dict[str, dict[str, Any]]:
    """Return what the store says of every file below ``uri`` (``size``, perhaps a hash) by relative path, sorted.

    Linked folders of a disk are walked too: large datasets are often spread over disks that way.
    """
    path = local_path(uri)
    with _readable(uri):
        if path is not None:
            return dict(sorted(_walk(path)))
        fs, root = filesystem(uri)
        root = root.rstrip("/")
        found = fs.find(root, detail=True)
    return {name.removeprefix(root).lstrip("/"): dict(found[name]) for name in sorted(found)}


def _walk(root: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    def fail(error: OSError) -> None:
        raise error

    for base, folders, names in os.walk(root, followlinks=True, onerror=fail) if root.is_dir() else ():
        here = os.path.realpath(base) + "/"
        # A link to a folder above itself would be walked for ever.
        folders[:] = [name for name in folders if not here.startswith(os.path.realpath(os.path.join(base, name)) + "/")]
        for name in names:
            file = os.path.join(base, name)
            try:
                size = os.stat(file).st_size
            except FileNotFoundError:  # a link may lead nowhere, and what another process was writing is renamed
                continue
            yield os.path.relpath(file, root), {"size": size}


def list_files(uri: str) -> list[tuple[str, int]]:
    """Return (relative path, bytes) of every file below ``uri``, sorted by path."""
    return [(name, int(facts["size"])) for name, facts in list_entries(uri).items()]


def remove(uri: str) -> None:
    """Delete a file or a folder; nothing happens when it is not there."""
    if exists(uri):
        fs, path = filesystem(uri)
        with suppress(FileNotFoundError):  # another process removes it too
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


def duplicate(uri: str, other: str) -> None:
    """Give a finished file a second place; one of the two is on this machine. On one disk it stays one file, linked.

    Raises:
        UsageError: If neither is.
        DataError: If the file is not there or may not be read.
    """
    source, target = local_path(uri), local_path(other)
    if target is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
    if source is not None:
        if target is None or not _linked(source, target):
            upload(source, other)
    elif target is None:
        raise UsageError(f"{uri} can't be copied to {other}: neither is on this machine")
    else:
        with _readable(uri):
            fs, remote = filesystem(uri)
            fs.get_file(remote, str(target))


def _linked(source: Path, target: Path) -> bool:
    try:
        os.link(source, target)
        return True
    except OSError as error:  # another disk, or one without hard links
        return error.errno == errno.EEXIST


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
    with tempfile.TemporaryDirectory(prefix="robolift-") as folder:
        with _readable(uri):
            fs, remote = filesystem(uri)
            copy = Path(folder) / Path(remote).name
            fs.get_file(remote, str(copy))
        yield copy


def sha256_file(path: Path) -> str:
    """Return the hex SHA-256 of a local file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of(document: Any) -> str:
    """Return 16 hex digits that identify a JSON-serializable document."""
    digest = hashlib.sha256()
    for block in _json_blocks(document):
        digest.update(block)
    return digest.hexdigest()[:16]
