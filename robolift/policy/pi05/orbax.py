"""openpi's Orbax checkpoint item ``params``: written and read, one array at a time.

The item's tree is ``{"params": <weights>}``. openpi's trainer leaves a level ``value`` below every name (flax's), its
published weights don't have it; both are read, and we write without.

Source: openpi, ``training/checkpoints.py`` and ``restore_params`` of ``models/model.py``.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import orbax.checkpoint as ocp

from robolift import storage
from robolift.errors import DataError, UsageError
from robolift.policy.pi05.tree import Params, flatten, unflatten
from robolift.policy.tensor_files import Spec

ITEM = "params"
MARKER = "_METADATA"
"""File that every item has; on a store it is written last."""
NNX_LEVEL = "/value"
FAILURES = (ValueError, KeyError, TypeError, OSError)
"""What Orbax and TensorStore raise at a damaged checkpoint."""


class OrbaxItem:
    """A ``params`` item that is open for reading.

    Args:
        path: Its folder.
        where: Its address in messages.

    Raises:
        DataError: If it is damaged or another item.
    """

    def __init__(self, path: Path, *, where: str) -> None:
        self._path = path
        self._where = where
        self._checkpointer = ocp.PyTreeCheckpointer()
        try:
            found = flatten(self._checkpointer.metadata(path).item_metadata.tree[ITEM])
        except FAILURES as error:
            raise self._damaged(error) from error
        self._level = NNX_LEVEL if all(name.endswith(NNX_LEVEL) for name in found) else ""
        self.specs = {
            name.removesuffix(self._level): Spec(tuple(array.shape), np.dtype(array.dtype).name)
            for name, array in found.items()
        }

    def read(self, name: str) -> np.ndarray:
        """Return one array.

        Raises:
            DataError: If its bytes are damaged.
        """
        path = f"{ITEM}/{name}{self._level}"
        arguments = ocp.args.PyTreeRestore(
            item=unflatten({path: 0}),
            restore_args=unflatten({path: ocp.RestoreArgs(restore_type=np.ndarray)}),
            partial_restore=True,
        )
        try:
            restored = self._checkpointer.restore(self._path, args=arguments)
        except FAILURES as error:
            raise self._damaged(error) from error
        return np.asarray(flatten(restored)[path])

    def _damaged(self, error: Exception) -> DataError:
        return DataError(
            f"not readable as openpi's weights: {error!r}",
            where=self._where,
            expected=f"the item {ITEM!r} of an Orbax checkpoint",
            mend="copy the folder again, all of it",
        )


def save(params: Params, uri: str) -> None:
    """Write the arrays of ``params`` as a ``params`` item, which appears whole or not at all.

    Args:
        params: Arrays of the host. Of several processes only one may call it.
        uri: Folder that is not there yet; to another store than a disk it is copied when it is whole, the file that
            makes it readable last. What a killed copy left is completed.

    Raises:
        UsageError: If weights are there already, or nothing may be written.
    """
    local = storage.local_path(uri)
    if storage.exists(uri if local is not None else storage.join(uri, MARKER)):
        raise UsageError(f"{uri} is there already; weights are never overwritten: choose another address")
    if local is not None:
        with storage.writable(uri):
            _save_local(params, local)
        return
    with tempfile.TemporaryDirectory(prefix="robolift-") as folder:
        path = Path(folder) / ITEM
        _save_local(params, path)
        names = [name for name, _ in storage.list_files(str(path)) if name != MARKER]
        with storage.writable(uri):
            for name in (*names, MARKER):
                storage.upload(path / name, storage.join(uri, name))


def _save_local(params: Params, path: Path) -> None:
    tree: dict[str, Any] = {ITEM: params}
    with ocp.PyTreeCheckpointer() as checkpointer:
        checkpointer.save(path, tree)
