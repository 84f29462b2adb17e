"""Weights dealt out over processes (FSDP2): each keeps a piece of every tensor and has the whole only while it is used.

A piece is a DTensor's local tensor. What works element by element works on pieces; what is saved is put together first,
so a state does not depend on how many processes there were.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import nn

from robolift.training.distributed import World


def shard(
    model: nn.Module, layers: Iterable[nn.Module], methods: Iterable[str], world: World, device: torch.device
) -> None:
    """Deal the weights of ``model`` out over all processes, in place.

    Args:
        model: On ``device``, the same weights in every process.
        layers: Parts that are put together and dropped again one after the other.
        methods: Methods of ``model`` that compute with its weights, besides ``forward``.
        world: This process; alone it keeps everything.
        device: Where the model is.
    """
    if world.size == 1:
        return
    from torch.distributed.device_mesh import init_device_mesh  # noqa: PLC0415  (these import torch.compile: seconds)
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method  # noqa: PLC0415

    mesh = init_device_mesh(device.type, (world.size,))
    for layer in layers:
        fully_shard(layer, mesh=mesh)
    # Put away after each method: held-out measures change the weights between two forwards with no backward between.
    fully_shard(model, mesh=mesh, reshard_after_forward=True)
    for method in methods:
        register_fsdp_forward_method(model, method)


def is_sharded(tensor: torch.Tensor) -> bool:
    """Tell whether this process holds but a piece of ``tensor``."""
    return hasattr(tensor, "to_local")  # told by name because importing DTensor takes seconds


def local(tensor: torch.Tensor) -> torch.Tensor:
    """Return this process's piece, sharing memory; the tensor itself where it is not dealt out."""
    return cast(Any, tensor).to_local() if is_sharded(tensor) else tensor


def whole(tensors: Mapping[str, torch.Tensor], world: World) -> dict[str, torch.Tensor]:
    """Return the tensors put together, on the CPU and for rank 0 alone; every process must call it.

    Tensors that are not dealt out are returned as they are.
    """
    found = {}
    for name, tensor in tensors.items():
        if is_sharded(tensor):
            full = cast(Any, tensor).full_tensor()
            tensor = full.cpu() if world.is_main else full.new_empty(0)
        found[name] = tensor
    return found


def spread(
    tensors: Mapping[str, torch.Tensor] | None, like: Mapping[str, torch.Tensor], world: World
) -> dict[str, torch.Tensor]:
    """Return rank 0's ``tensors`` in every process, placed and dealt out as ``like`` is, one after the other.

    Args:
        tensors: Whole tensors by name, given by rank 0 alone.
        like: Tensors of the same names.
        world: This process among the others.
    """
    found: dict[str, torch.Tensor] = {}
    for name, model in like.items():
        full = torch.empty(model.shape, dtype=model.dtype, device=model.device)
        if tensors is not None:
            full.copy_(tensors[name])
        if is_sharded(model):
            from torch.distributed.tensor import distribute_tensor  # noqa: PLC0415

            sharded = cast(Any, model)
            found[name] = cast(torch.Tensor, distribute_tensor(full, sharded.device_mesh, sharded.placements))
        else:
            if world.size > 1:
                dist.broadcast(full, src=0)
            found[name] = full
    return found


def norm_over_processes(norm: torch.Tensor) -> torch.Tensor:
    """Return the norm of all pieces together of the norm of this process's pieces."""
    square = norm.square()
    dist.all_reduce(square)
    return square.sqrt()
