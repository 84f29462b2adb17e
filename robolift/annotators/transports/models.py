"""Model folders: which content an address holds, and a local copy of it. Nothing is ever fetched from a hub."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from robolift import storage
from robolift.errors import DataError, UsageError

CONFIG_FILE = "config.json"
WEIGHTS = ".safetensors"
CACHE_VARIABLE = "ROBOLIFT_MODEL_CACHE"


def model_digest(model_uri: str) -> str:
    """Return the SHA-256 (64 hex digits) of a model: of the names and contents of the files in its folder.

    Hidden files and folders don't count: downloads leave their own marks there.

    Raises:
        UsageError: If there is no folder.
        DataError: If it lacks ``config.json`` or weights.
    """
    files = _files(model_uri)
    return _digest({name: _sha256(storage.join(model_uri, name)) for name in files})


def materialize(model_uri: str, expect_sha256: str = "") -> Path:
    """Return a local folder with the model's files; a local model is used where it lies.

    Copies are kept by content under ``ROBOLIFT_MODEL_CACHE`` (default ``~/.cache/robolift/models``), so a model that is
    there already is not read again where its digest is given.

    Args:
        model_uri: Folder at any address.
        expect_sha256: What :func:`model_digest` must say; empty: anything.

    Raises:
        UsageError: If there is no folder.
        DataError: If it lacks ``config.json`` or weights, or holds something else than expected.
    """
    local = storage.local_path(model_uri)
    if local is not None:
        if expect_sha256:
            _check(model_digest(model_uri), expect_sha256, model_uri)
        else:
            _files(model_uri)
        return local
    kept = _cache() / expect_sha256
    return kept if expect_sha256 and kept.is_dir() else _copy(model_uri, expect_sha256)


def _copy(model_uri: str, expect_sha256: str) -> Path:
    files = _files(model_uri)
    cache = _cache()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=cache, prefix=".copy-"))
    except OSError as error:
        raise UsageError(
            f"no copy of the model can be kept: {error}; set {CACHE_VARIABLE} to a folder on a disk"
        ) from error
    try:
        fs, root = storage.filesystem(model_uri)
        for name in files:
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            fs.get_file(f"{root.rstrip('/')}/{name}", str(target))
        digest = model_digest(str(folder))
        _check(digest, expect_sha256, model_uri)
        kept = cache / digest
        if not kept.is_dir():
            try:
                folder.rename(kept)
            except OSError:  # another process was quicker
                if not kept.is_dir():
                    raise
        return kept
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _files(model_uri: str) -> list[str]:
    names = [name for name, _ in storage.list_files(model_uri) if not name.startswith(".") and "/." not in name]
    if not names:
        raise UsageError(
            f"no files in the model's folder {model_uri}; expected the address of a folder with its weights"
        )
    if CONFIG_FILE not in names:
        raise DataError(
            f"a model without {CONFIG_FILE}",
            where=model_uri,
            expected="a folder as transformers saves it",
            mend="choose the folder that holds it, or the snapshot folder inside a hub cache",
        )
    if not any(name.endswith(WEIGHTS) for name in names):
        raise DataError(
            "a model without weights",
            where=model_uri,
            expected=f"files that end in {WEIGHTS}; pickled weights can run any code and are not read",
            mend="save the model with safe_serialization",
        )
    return names


def _check(found: str, expected: str, model_uri: str) -> None:
    if expected and found != expected:
        raise DataError(
            f"the model's files have the digest {found}",
            where=model_uri,
            expected=expected,
            mend="restore the model that the plan was made for, or plan again with this one",
        )


def _digest(hashes: dict[str, str]) -> str:
    return hashlib.sha256(storage.to_json_bytes(hashes)).hexdigest()


def _sha256(uri: str) -> str:
    local = storage.local_path(uri)
    if local is not None:
        return storage.sha256_file(local)
    digest = hashlib.sha256()
    with storage.open_file(uri) as file:
        while block := file.read(storage.BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _cache() -> Path:
    return Path(os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache/robolift/models")
