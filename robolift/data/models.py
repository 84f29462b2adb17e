"""Model files and folders: which content an address holds, and a local copy of it. Nothing is fetched from a hub."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from robolift import storage
from robolift.data.content import sha256
from robolift.errors import DataError, UsageError

CACHE_VARIABLE = "ROBOLIFT_MODEL_CACHE"


def model_digest(model_uri: str) -> str:
    """Return the SHA-256 (64 hex digits) of a model.

    Of a file it is that of its bytes, as ``sha256sum`` prints it; of a folder that of the names and contents of its
    files. Hidden files and folders don't count: downloads leave their own marks there.

    Raises:
        UsageError: If nothing is there.
    """
    if _is_file(model_uri):
        return sha256(model_uri)
    hashes = {name: sha256(storage.join(model_uri, name)) for name in model_files(model_uri)}
    return hashlib.sha256(storage.to_json_bytes(hashes)).hexdigest()


def model_files(model_uri: str) -> list[str]:
    """Return the names of the files in a model's folder, sorted; hidden ones don't count.

    Raises:
        UsageError: If there are none.
    """
    names = [name for name, _ in storage.list_files(model_uri) if not name.startswith(".") and "/." not in name]
    if not names:
        raise UsageError(
            f"no files in the model's folder {model_uri}; expected the address of a folder with its weights"
        )
    return sorted(names)


def read_model(model_uri: str) -> bytes:
    """Return the content of a model that is one file.

    Raises:
        UsageError: If there is no such file.
    """
    if not _is_file(model_uri):
        raise UsageError(f"{model_uri} is a folder; expected the address of one file")
    return storage.read_bytes(model_uri)


def materialize(model_uri: str, expect_sha256: str = "") -> Path:
    """Return a local file or folder with the model's content; a local model is used where it lies.

    Copies are kept by content under ``ROBOLIFT_MODEL_CACHE`` (default ``~/.cache/robolift/models``), so a model that is
    there already is not read again where its digest is given: ``<digest>/<name of the file or folder>``.

    Args:
        model_uri: File or folder at any address.
        expect_sha256: What :func:`model_digest` must say; empty: anything.

    Raises:
        UsageError: If nothing is there, or no copy can be kept.
        DataError: If it holds something else than expected.
    """
    local = storage.local_path(model_uri)
    if local is not None:
        _check(model_digest(model_uri) if expect_sha256 else "", expect_sha256, model_uri)
        _is_file(model_uri)  # says so where nothing is there
        return local
    name = model_uri.rstrip("/").rsplit("/", 1)[-1]
    kept = _cache() / expect_sha256 / name
    return kept if expect_sha256 and kept.exists() else _copy(model_uri, expect_sha256, name)


def _copy(model_uri: str, expect_sha256: str, name: str) -> Path:
    cache = _cache()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(dir=cache, prefix=".copy-"))
    except OSError as error:
        raise UsageError(
            f"no copy of the model can be kept: {error}; set {CACHE_VARIABLE} to a folder on a disk"
        ) from error
    try:
        fs, root = storage.filesystem(model_uri)
        parts = [""] if _is_file(model_uri) else model_files(model_uri)
        for part in parts:
            target = work / name / part
            target.parent.mkdir(parents=True, exist_ok=True)
            fs.get_file(f"{root.rstrip('/')}/{part}".rstrip("/"), str(target))
        digest = model_digest(str(work / name))
        _check(digest, expect_sha256, model_uri)
        kept = cache / digest
        if not (kept / name).exists():
            try:
                work.rename(kept)
            except OSError:  # another process was quicker, or the same content is kept under another name
                if not (kept / name).exists():
                    (work / name).rename(kept / name)
        return kept / name
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _is_file(model_uri: str) -> bool:
    facts = storage.info(model_uri)
    if facts is None:
        raise UsageError(f"no model at {model_uri}; expected the address of its file or folder")
    return bool(facts["type"] == "file")


def _check(found: str, expected: str, model_uri: str) -> None:
    if expected and found != expected:
        raise DataError(
            f"the model's files have the digest {found}",
            where=model_uri,
            expected=expected,
            mend="restore the model that was meant, or give the digest of this one; a plan is of one model: plan again",
        )


def _cache() -> Path:
    return Path(os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache/robolift/models")
