"""Model folders as transformers saves them; where models lie and how they are kept is :mod:`robolift.data.models`."""

from __future__ import annotations

from pathlib import Path

from robolift.data import models
from robolift.errors import DataError

CONFIG_FILE = "config.json"
WEIGHTS = ".safetensors"


def model_digest(model_uri: str) -> str:
    """Return the SHA-256 (64 hex digits) of a model: of the names and contents of the files in its folder.

    Raises:
        UsageError: If there is no folder.
        DataError: If it lacks ``config.json`` or weights.
    """
    _check_files(model_uri)
    return models.model_digest(model_uri)


def materialize(model_uri: str, expect_sha256: str = "") -> Path:
    """Return a local folder with the model's files, as :func:`robolift.data.models.materialize` does.

    Args:
        model_uri: Folder at any address.
        expect_sha256: What :func:`model_digest` must say; empty: anything.

    Raises:
        UsageError: If there is no folder, or no copy can be kept.
        DataError: If it lacks ``config.json`` or weights, or holds something else than expected.
    """
    folder = models.materialize(model_uri, expect_sha256)
    _check_files(str(folder))
    return folder


def _check_files(model_uri: str) -> None:
    names = models.model_files(model_uri)
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
