"""Heads for progress and success, against numbers by hand and torch's own layers."""

import json

import numpy as np
import pytest
import safetensors.numpy
from tiny_vlm import BINS, HIDDEN, write_heads

from robolift.annotators.transports.heads import Head, Heads, expectation, read_heads
from robolift.errors import DataError, UsageError


def test_equal_logits_are_half_way():
    assert expectation(np.zeros((1, 10))) == pytest.approx([0.5])


def test_a_sure_bin_is_its_centre():
    logits = np.full((2, 10), -1000.0)
    logits[0, 3] = 500.0
    logits[1, 9] = 500.0
    assert expectation(logits) == pytest.approx([3 / 9, 1.0])


def test_expectation_by_hand():
    # Weights 1 : 3 of the bins at 0 and 1/2 of three, nothing at 1: (1*0 + 3*0.5) / 4.
    assert expectation(np.array([[0.0, np.log(3.0), -1000.0]])) == pytest.approx([0.375])


def test_a_head_by_hand():
    head = Head(
        tensors={
            "0.weight": np.array([[1.0, 0.0], [0.0, 1.0]]),
            "0.bias": np.array([0.0, 2.0]),
            "1.weight": np.array([1.0, 1.0]),
            "1.bias": np.array([0.0, 0.0]),
            "4.weight": np.array([[2.0, 1.0]]),
            "4.bias": np.array([0.5]),
        }
    )
    # (3, -1) + (0, 2) = (3, 1), normed (1, -1), GELU (0.841345, -0.158655), 2 * 0.841345 - 0.158655 + 0.5.
    assert head(np.array([[3.0, -1.0]])) == pytest.approx(np.array([[2.024035]]), abs=1e-4)


def test_heads_are_torchs_layers(tmp_path):
    import torch
    from torch import nn

    write_heads(tmp_path, seed=3)
    heads = read_heads(tmp_path, hidden_size=HIDDEN)
    states = np.random.default_rng(0).normal(0, 2, (5, HIDDEN)).astype(np.float32)
    tensors = safetensors.numpy.load_file(tmp_path / "heads.safetensors")
    logits = {}
    for name, out in (("progress_head", BINS), ("success_head", 1)):
        half = HIDDEN // 2
        layers = nn.Sequential(
            nn.Linear(HIDDEN, half), nn.LayerNorm(half), nn.GELU(), nn.Dropout(0.1), nn.Linear(half, out)
        ).eval()
        own = {k.removeprefix(f"{name}."): torch.from_numpy(v) for k, v in tensors.items() if k.startswith(name)}
        layers.load_state_dict(own)
        logits[name] = layers(torch.from_numpy(states)).detach()
    progress, success = heads.read(states)
    expected = (logits["progress_head"].softmax(1) * torch.linspace(0, 1, BINS)).sum(1)
    assert progress == pytest.approx(expected.tolist(), abs=1e-5)
    assert success == pytest.approx(logits["success_head"][:, 0].sigmoid().tolist(), abs=1e-5)


def test_extreme_logits_stay_numbers():
    huge = Head(tensors=_one_number(1e6))
    progress, success = Heads(token="x", progress=huge, success=huge).read(np.ones((1, 1), np.float32))
    assert (progress, success) == ((0.0,), (1.0,))  # a single bin lies at 0
    low = Head(tensors=_one_number(-1e6))
    assert Heads(token="x", progress=low, success=low).read(np.ones((1, 1), np.float32))[1] == (0.0,)


def _one_number(bias):
    zero = np.zeros((1, 1))
    names = {"0.weight": zero, "0.bias": zero[0], "1.weight": zero[0], "1.bias": zero[0], "4.weight": zero}
    return {**names, "4.bias": np.array([bias])}


def test_a_model_without_heads(tmp_path):
    with pytest.raises(UsageError, match="this model has no heads for progress; choose another protocol"):
        read_heads(tmp_path, hidden_size=HIDDEN)


def test_heads_of_another_model(tmp_path):
    write_heads(tmp_path)
    with pytest.raises(DataError, match=r"heads for states of 64 numbers[\s\S]*expected: 32, as the model has"):
        read_heads(tmp_path, hidden_size=32)


@pytest.mark.parametrize("change", ["bins", "missing"])
def test_heads_that_do_not_fit(tmp_path, change):
    write_heads(tmp_path)
    if change == "bins":
        document = json.loads((tmp_path / "heads.json").read_text())
        (tmp_path / "heads.json").write_text(json.dumps({**document, "bins": 11}))
    else:
        tensors = safetensors.numpy.load_file(tmp_path / "heads.safetensors")
        kept = {name: tensor for name, tensor in tensors.items() if name != "progress_head.4.bias"}
        safetensors.numpy.save_file(kept, tmp_path / "heads.safetensors")
    with pytest.raises(DataError, match=r"progress_head with [\s\S]*expected: [\s\S]*4\.weight"):
        read_heads(tmp_path, hidden_size=HIDDEN)
