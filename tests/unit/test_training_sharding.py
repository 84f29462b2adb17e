"""Tensors that are dealt out, in a world of one process: what is read and written goes through the same collectives."""

from __future__ import annotations

import pytest
import safetensors.torch
import torch
import torch.distributed as dist

from robolift.training.checkpoint import write_tensors
from robolift.training.distributed import ALONE, World
from robolift.training.sharding import fill, full, is_sharded, local


@pytest.fixture
def deal(tmp_path):
    """Deals a tensor out over a group of processes, of which this is the only one."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    mesh = init_device_mesh("cpu", (1,))
    yield lambda tensor: distribute_tensor(tensor, mesh, [Shard(0)])
    dist.destroy_process_group()


def test_a_tensor_that_is_dealt_out_is_filled_in_place_and_put_together_for_rank_0(deal, tmp_path):
    target, source = deal(torch.zeros(3, 2)), torch.arange(6.0).reshape(3, 2)
    assert is_sharded(target)
    assert not is_sharded(source)
    place = local(target).data_ptr()
    fill(target, source, ALONE)
    assert local(target).data_ptr() == place
    assert torch.equal(local(target), source)
    assert torch.equal(full(target, ALONE), source)
    assert not is_sharded(full(target, ALONE))
    assert full(target, World(rank=1, size=2)).numel() == 0
    write_tensors(str(tmp_path / "x"), {"w": target, "plain": torch.ones(1)}, ALONE)
    assert (tmp_path / "x").read_bytes() == safetensors.torch.save({"w": source, "plain": torch.ones(1)})


def test_only_rank_0_writes_and_the_others_help_to_put_together(deal, tmp_path):
    assert write_tensors(str(tmp_path / "x"), {"w": deal(torch.ones(2, 2))}, World(rank=1, size=2)) == ""
    assert not (tmp_path / "x").exists()
