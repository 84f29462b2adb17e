"""Tensors that are dealt out, in a world of one process: what is read and written goes through the same collectives."""

from __future__ import annotations

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed import device_mesh

from robolift.training.checkpoint import StateStore, write_tensors
from robolift.training.distributed import ALONE, World
from robolift.training.loop import LoopOptions, fit
from robolift.training.sharding import fill, full, is_sharded, local, shard


@pytest.fixture
def deal(tmp_path):
    """Deals a tensor out over a group of processes, of which this is the only one."""
    from torch.distributed.tensor import Shard, distribute_tensor

    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    mesh = device_mesh.init_device_mesh("cpu", (1,))
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


class PowerCutError(Exception):
    pass


class Plane:
    """Fits a plane from noisy points; the power may be cut before a step."""

    def __init__(self, model, cut_at):
        self.model, self.cut_at = model, cut_at

    def losses(self, step, part=0):
        if step == self.cut_at:
            raise PowerCutError
        x = torch.from_numpy(np.random.default_rng([step, part]).standard_normal((8, 2)).astype(np.float32))
        return {"loss": (self.model(x)[:, 0] - x.sum(1)).square().mean()}

    def evaluate(self):
        assert any(map(is_sharded, self.model.parameters())) == (self.cut_at is not None)
        x = torch.ones(1, 2)
        return {"loss": (self.model(x)[:, 0] - x.sum(1)).square().mean().item()}


@pytest.mark.usefixtures("deal")
def test_a_run_whose_weights_are_dealt_out_has_the_numbers_of_one_that_keeps_them_and_resumes(tmp_path, monkeypatch):
    mesh = device_mesh.init_device_mesh("cpu", (1,))
    monkeypatch.setattr(device_mesh, "init_device_mesh", lambda *_: mesh)  # two processes would take seconds to start
    options = LoopOptions(
        steps=8,
        peak_learning_rate=0.05,
        warmup_steps=1,
        final_learning_rate_fraction=0.1,
        weight_decay=0.01,
        gradient_clip=1.0,
        ema_decay=0.5,
        log_every=3,
        eval_every=3,
        save_every=2,
        select="best",
        accumulate=2,
    )

    def train(name, cut_at=None):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1))
        model[2].requires_grad_(requires_grad=False)
        if cut_at is not None:
            shard(model, [model[0], model[2]], (), World(rank=0, size=2), torch.device("cpu"))
        return fit(model, Plane(model, cut_at), options, world=ALONE, store=StateStore(str(tmp_path / name)))

    whole = train("whole")
    with pytest.raises(PowerCutError):
        train("dealt", cut_at=5)
    dealt = train("dealt", cut_at=99)
    assert all(map(is_sharded, dealt.weights.values()))
    assert (dealt.step, dealt.curves) == (whole.step, whole.curves)
    assert all(torch.equal(full(dealt.weights[name], ALONE), weight) for name, weight in whole.weights.items())
    files = [tmp_path / name / "checkpoints" / "8" / "optimizer.safetensors" for name in ("whole", "dealt")]
    assert files[0].read_bytes() == files[1].read_bytes()
