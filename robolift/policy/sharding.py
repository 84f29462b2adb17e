"""Where arrays live when a policy trains on several devices: a mesh of (batch, fsdp).

Rows of a batch are spread over both axes; large weights are cut along the ``fsdp`` axis and gathered when used (fully
sharded data parallelism, as openpi's ``training/sharding.py``). JAX inserts the communication.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from robolift.errors import UsageError
from robolift.policy import xla  # noqa: F401

BATCH_AXIS, FSDP_AXIS = "batch", "fsdp"
SMALLEST_SHARDED_BYTES = 4 << 20
"""Cutting smaller arrays costs more in latency than it saves in memory."""


def make_mesh(num_devices: int, fsdp_devices: int) -> Mesh:
    """Return a mesh of (num_devices / fsdp_devices, fsdp_devices) over the first devices of this machine.

    Of several machines that train together it takes all devices: one left out would have nothing to do for its process.

    Raises:
        UsageError: If there are fewer devices, or several machines have more.
    """
    machines = jax.process_count()
    available = jax.local_devices() if machines == 1 else jax.devices()
    if machines > 1 and num_devices != len(available):
        raise UsageError(
            f"num_devices is {num_devices}, the {machines} machines of this job have {len(available)}; "
            "it is part of what identifies the result, so set it to the number of the job's devices"
        )
    if num_devices > len(available):
        raise UsageError(
            f"num_devices is {num_devices}, this machine has {len(available)} ({available[0].platform}); "
            "set num_devices to what a node has"
        )
    grid = np.array(available[:num_devices]).reshape(-1, fsdp_devices)
    return Mesh(grid, (BATCH_AXIS, FSDP_AXIS))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Return the placement of a batch: its first axis is cut over all devices."""
    return NamedSharding(mesh, PartitionSpec((BATCH_AXIS, FSDP_AXIS)))  # type: ignore[no-untyped-call]


def replicated(mesh: Mesh) -> NamedSharding:
    """Return the placement of what every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())  # type: ignore[no-untyped-call]


def state_shardings(tree: Any, mesh: Mesh, *, smallest_bytes: int = SMALLEST_SHARDED_BYTES) -> Any:
    """Return the placement of each array of ``tree``, as a tree of the same form.

    An array of two axes or more and at least ``smallest_bytes`` is cut along its largest axis that the ``fsdp`` axis
    divides; every other array is whole on each device. Averages and optimizer moments have the shapes of their weights
    and so lie where these lie.
    """
    parts = mesh.shape[FSDP_AXIS]

    def place(leaf: Any) -> NamedSharding:
        size = int(np.prod(leaf.shape)) * leaf.dtype.itemsize
        divisible = [axis for axis, length in enumerate(leaf.shape) if length % parts == 0]
        if parts == 1 or leaf.ndim < 2 or size < smallest_bytes or not divisible:
            return replicated(mesh)
        largest = max(divisible, key=lambda axis: leaf.shape[axis])
        axes = (FSDP_AXIS if axis == largest else None for axis in range(leaf.ndim))
        return NamedSharding(mesh, PartitionSpec(*axes))  # type: ignore[no-untyped-call]

    return jax.tree.map(place, tree)
