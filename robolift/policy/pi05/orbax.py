"""openpi's Orbax checkpoint item ``params``: written and read.

The item's tree is ``{"params": <weights>}``. openpi's trainer leaves a level ``value`` below every name (flax's), its
published weights don't have it; both are read, and we write without.

Source: openpi, ``training/checkpoints.py`` and ``restore_params`` of ``models/model.py``.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from robolift import storage
from robolift.errors import DataError, UsageError
from robolift.policy import xla  # noqa: F401
from robolift.policy.pi05.address import ITEM, MARKER
from robolift.policy.pi05.tree import Params, flatten, unflatten
from robolift.tensor_files import Spec

NNX_LEVEL = "/value"
FAILURES = (ValueError, KeyError, TypeError, OSError, AttributeError)
"""What Orbax and TensorStore raise at a damaged checkpoint; the last where Orbax finds no metadata and says None."""


def specs(path: Path, *, where: str) -> dict[str, Spec]:
    """Return what a ``params`` item holds, by the paths of the tree.

    Args:
        path: Its folder.
        where: Its address in messages.

    Raises:
        DataError: If it is damaged or another item.
    """
    found = _names(path, where=where)
    return {
        name.removesuffix(_level(found)): Spec(tuple(array.shape), np.dtype(array.dtype).name)
        for name, array in found.items()
    }


def load(path: Path, *, where: str) -> Params:
    """Return the arrays of a ``params`` item, on the host.

    Args:
        path: Its folder.
        where: Its address in messages.

    Raises:
        DataError: If it is damaged or another item.
    """
    found = _names(path, where=where)
    arguments = ocp.args.PyTreeRestore(
        item={ITEM: unflatten(dict.fromkeys(found, 0))},
        restore_args={ITEM: unflatten(dict.fromkeys(found, ocp.RestoreArgs(restore_type=np.ndarray)))},
    )
    try:
        restored = flatten(_checkpointer().restore(path, args=arguments)[ITEM])
    except FAILURES as error:
        raise _damaged(error, where) from error
    return unflatten({name.removesuffix(_level(found)): array for name, array in restored.items()})


def _names(path: Path, *, where: str) -> dict[str, Any]:
    try:
        return flatten(_checkpointer().metadata(path).item_metadata.tree[ITEM])
    except FAILURES as error:
        raise _damaged(error, where) from error


def _level(names: Iterable[str]) -> str:
    return NNX_LEVEL if all(name.endswith(NNX_LEVEL) for name in names) else ""


def _damaged(error: Exception, where: str) -> DataError:
    return DataError(
        f"not readable as openpi's weights: {error!r}",
        where=where,
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
    with _checkpointer() as checkpointer:
        checkpointer.save(path, args=ocp.args.PyTreeSave(tree))


def _checkpointer() -> Any:
    """Return what this process reads and writes with by itself; else Orbax waits for all processes of the job."""
    this = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=this, active_processes={this}, barrier_sync_key_prefix=f"process{this}"
    )
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=alone)
    return ocp.Checkpointer(handler, multiprocessing_options=alone)
