"""A policy that trains on several machines: how their processes meet, and what they hold together.

Every process draws the same batches, so no data travels between them: each reads its own part of a batch and puts it on
its own devices. JAX adds gradients up over all devices, whichever machine they are in.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from robolift.errors import UsageError
from robolift.policy import xla  # noqa: F401

COUNT_VARIABLE, INDEX_VARIABLE = "PET_NNODES", "PET_NODE_RANK"
ADDRESS_VARIABLE, PORT_VARIABLE = "PET_MASTER_ADDR", "PET_MASTER_PORT"
"""torchrun's own names, because every kind of job sets them already."""
MEETING_TIMEOUT_S = 86_400
PARTING_TIMEOUT_S = 60
"""Pods start hours apart where GPUs are scarce; the job's own deadline ends a wait in vain."""


@dataclass(frozen=True)
class Host:
    """This process among those that train together, one on each machine."""

    index: int = 0
    count: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is the process that saves and publishes."""
        return self.index == 0


def this_host(environ: Mapping[str, str] = os.environ) -> Host:
    """Return who this process is; alone unless the job says otherwise.

    Raises:
        UsageError: If the variables don't fit together.
    """
    count = environ.get(COUNT_VARIABLE, "1")
    if count == "1":
        return Host()
    index = environ.get(INDEX_VARIABLE, "")
    if not (count.isdecimal() and index.isdecimal() and int(index) < int(count)):
        raise UsageError(
            f"{INDEX_VARIABLE} is {index!r} and {COUNT_VARIABLE} {count!r}; expected a number below the other"
        )
    if missing := [name for name in (ADDRESS_VARIABLE, PORT_VARIABLE) if name not in environ]:
        raise UsageError(f"{COUNT_VARIABLE} is {count} and {missing[0]} is not set; it says where processes meet")
    return Host(int(index), int(count))


def join(environ: Mapping[str, str] = os.environ) -> Host:
    """Meet the other processes of this job, before JAX looks for devices; return who this one is."""
    host = this_host(environ)
    if host.count > 1 and not jax.distributed.is_initialized():
        jax.distributed.initialize(
            coordinator_address=f"{environ[ADDRESS_VARIABLE]}:{environ[PORT_VARIABLE]}",
            num_processes=host.count,
            process_id=host.index,
            initialization_timeout=MEETING_TIMEOUT_S,
            shutdown_timeout_seconds=PARTING_TIMEOUT_S,
        )
    return host


def put(tree: Any, shardings: Any) -> Any:
    """Return the arrays of ``tree``, equal in every process, on the devices where ``shardings`` want them."""
    if jax.process_count() == 1:
        return jax.device_put(tree, shardings)

    def place(leaf: Any, sharding: Any) -> jax.Array:
        whole = np.asarray(leaf)
        return jax.make_array_from_callback(whole.shape, sharding, lambda part: whole[part])

    if isinstance(shardings, jax.sharding.Sharding):
        return jax.tree.map(lambda leaf: place(leaf, shardings), tree)
    return jax.tree.map(place, tree, shardings)


def own_rows(sharding: jax.sharding.Sharding, count: int) -> np.ndarray:
    """Return which of the ``count`` rows of a batch lie on devices of this process, ascending."""
    parts = sharding.addressable_devices_indices_map((count,)).values()
    return np.unique(np.concatenate([np.arange(count)[part] for part in parts]))


def put_rows(tree: Any, sharding: jax.sharding.Sharding, count: int) -> Any:
    """Return a batch of ``count`` rows on the devices; each process gives its :func:`own_rows` alone."""
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)

    def place(leaf: Any) -> jax.Array:
        own = np.asarray(leaf)
        whole: jax.Array = jax.make_array_from_process_local_data(  # type: ignore[no-untyped-call]
            sharding, own, (count, *own.shape[1:])
        )
        return whole

    return jax.tree.map(place, tree)


def to_host(tree: Any) -> Any:
    """Return the arrays of ``tree`` whole, as NumPy's; every process has to call it."""
    return jax.tree.map(_whole, tree)


def _whole(leaf: Any) -> np.ndarray:
    if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
        return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))
    return np.asarray(leaf)


def any_of_us(*, said: bool) -> bool:
    """Tell whether any process says so; every process has to ask."""
    if jax.process_count() == 1:
        return said
    return bool(np.any(multihost_utils.process_allgather(np.array(said))))
