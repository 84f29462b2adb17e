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


def split_rows(x: jax.Array) -> jax.Array:
    """Return activations ``x`` with their first axis, the row, cut over all devices of the mesh that is set.

    Unless it is told so after each step of a network, XLA lets activations follow the cut of the weights: every device
    then works on all rows, and what is sent grows with the batch. Told so, it gathers weights, layer by layer (openpi's
    ``activation_sharding_constraint``). Without a mesh (``jax.set_mesh``), as when a policy acts, ``x`` is unchanged.
    """
    return x if jax.sharding.get_abstract_mesh().empty else _cut(x, (BATCH_AXIS, FSDP_AXIS))


def look_up(table: jax.Array, rows: jax.Array) -> jax.Array:
    """Return (B, L, W) what is at (B, L) ``rows`` of (V, W) ``table``, with B cut over all devices of a mesh.

    Of a table that is cut by rows each device would add its share to all that is looked up. So it is cut by columns
    first, if the devices that share a copy divide them: each finds its columns, and sends on as much as it gets.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or table.shape[-1] % mesh.shape[FSDP_AXIS]:
        return split_rows(table[rows])
    columns, told = _cut(table, None, FSDP_AXIS), _cut(rows, BATCH_AXIS)
    return split_rows(_cut(columns[told], BATCH_AXIS, None, FSDP_AXIS))


def _cut(x: jax.Array, *axes: Any) -> jax.Array:
    cut: jax.Array = jax.lax.with_sharding_constraint(x, PartitionSpec(*axes))  # type: ignore[no-untyped-call]
    return cut


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
