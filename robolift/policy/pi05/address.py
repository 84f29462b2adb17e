"""Where weights of pi0.5 lie: which file or folder an address means. Needs no JAX."""

from __future__ import annotations

from robolift import storage
from robolift.errors import DataError

ITEM = "params"
"""Orbax checkpoint item with openpi's weights: a folder in that of a step."""
MARKER = "_METADATA"
"""File that every item has; on a store it is written last."""
WEIGHTS_FILE = "model.safetensors"
"""Where a folder of openpi's, or of ours, holds its weights."""


def resolve(uri: str) -> str:
    """Return the address of the file or item that is meant by ``uri``; digests are of that.

    Args:
        uri: A file, an item's folder, or a folder that has one of both. What isn't there is left as it is.

    Raises:
        DataError: If a folder has neither.
    """
    facts = storage.info(uri)
    if facts is None or facts["type"] == "file" or storage.exists(storage.join(uri, MARKER)):
        return uri
    for name, marker in ((ITEM, f"{ITEM}/{MARKER}"), (WEIGHTS_FILE, WEIGHTS_FILE)):
        if storage.exists(storage.join(uri, marker)):
            return storage.join(uri, name)
    raise DataError(
        "no weights in this folder",
        where=uri,
        expected=f"{MARKER} of openpi's item {ITEM!r}, the item's folder, or {WEIGHTS_FILE}",
        mend="give the address of the weights",
    )
