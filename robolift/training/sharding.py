"""Weights dealt out over processes (FSDP2): each keeps a piece of every tensor and has the whole only while it is used.

A piece is a DTensor's local tensor. What works element by element works on pieces; what is saved is put together first,
so a state does not depend on how many processes there were.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Piece:
    """A copy of this process's piece of a tensor that is dealt out along its first axis.

    Attributes:
        rows: The piece, on the CPU; maybe no rows.
        shape: Shape of the whole tensor.
        group: The connections over which it is put together.
    """

    rows: torch.Tensor
    shape: torch.Size
    group: dist.ProcessGroup

    @property
    def dtype(self) -> torch.dtype:
        """Type of the numbers."""
        return self.rows.dtype

    def whole(self, world: World) -> torch.Tensor:
        """Return the tensor put together for rank 0; every process has to call it, and the others get an empty one."""
        if not world.is_main:
            if len(self.rows):
                dist.send(self.rows, group_dst=0, group=self.group)
            return self.rows.new_empty(0)
        whole = self.rows.new_empty(self.shape)
        # DTensor cuts an axis as chunk does; where there are too few rows the last processes get none.
        for rank, part in enumerate(whole.chunk(world.size)):
            if rank:
                dist.recv(part, group_src=rank, group=self.group)
            else:
                part.copy_(self.rows)
        return whole


def full(tensor: torch.Tensor | Piece, world: World) -> torch.Tensor:
    """Return ``tensor`` put together, on the CPU and for rank 0 alone; the others get an empty one.

    Every process has to call it where the tensor is dealt out.
    """
    if isinstance(tensor, Piece):
        return tensor.whole(world)
    tensor = tensor.detach()
    if is_sharded(tensor):
        tensor = cast(torch.Tensor, cast(Any, tensor).full_tensor())
    return tensor.cpu() if world.is_main else tensor.new_empty(0)


@torch.no_grad()
def fill(target: torch.Tensor, source: torch.Tensor | None, world: World) -> None:
    """Copy rank 0's ``source`` into ``target`` in every process, whole or by pieces as that is dealt out.

    Args:
        target: Changed in place.
        source: The whole tensor, given by rank 0 alone.
        world: This process among the others.
    """
    piece = local(target)
    if is_sharded(target):
        from torch.distributed.tensor import distribute_tensor  # noqa: PLC0415

        sharded = cast(Any, target)
        whole = torch.empty(target.shape, dtype=target.dtype, device=piece.device)
        if source is not None:
            whole.copy_(source)
        piece.copy_(local(cast(torch.Tensor, distribute_tensor(whole, sharded.device_mesh, sharded.placements))))
        return
    if source is not None:
        piece.copy_(source)
    if world.size > 1:
        dist.broadcast(piece, src=0)


def norm_over_processes(norm: torch.Tensor) -> torch.Tensor:
    """Return the norm of all pieces together of the norm of this process's pieces."""
    square = norm.square()
    dist.all_reduce(square)
    return square.sqrt()
