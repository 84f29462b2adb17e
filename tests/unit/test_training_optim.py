from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from robolift.training.optim import BETAS, AdamW, MovingAverage, learning_rate


def rates(**changes):
    options = {"peak": 1.0, "warmup_steps": 4, "total_steps": 9, "final_fraction": 0.1, **changes}
    return [learning_rate(step, **options) for step in range(options["total_steps"])]


def test_the_rate_rises_to_the_peak_and_ends_at_the_final_fraction():
    expected = [0.2, 0.4, 0.6, 0.8, 1.0]
    assert rates()[:5] == pytest.approx(expected)
    assert rates()[6] == pytest.approx(0.55)  # half-way down the cosine
    assert rates()[-1] == pytest.approx(0.1)


def test_without_warm_up_the_first_step_has_the_peak():
    assert rates(warmup_steps=0)[0] == 1.0
    assert rates(warmup_steps=0, total_steps=1) == [1.0]


@pytest.mark.parametrize("fused", [False, True])
def test_updates_equal_pytorch_s_own_with_vectors_not_decayed(fused):
    torch.manual_seed(0)
    ours, theirs = nn.Linear(5, 3), nn.Linear(5, 3)
    theirs.load_state_dict(ours.state_dict())
    groups = [{"params": [theirs.weight], "weight_decay": 0.3}, {"params": [theirs.bias], "weight_decay": 0.0}]
    reference = torch.optim.AdamW(groups, betas=BETAS)
    optimizer = AdamW(ours, weight_decay=0.3, fused=fused)
    for step in range(30):
        x = torch.randn(8, 5) * (10 if step == 20 else 1)  # one step whose gradient is clipped
        for model in (ours, theirs):
            model.zero_grad()
            model(x).square().sum().backward()
        rate = 0.01 * (1 + step)
        reference.param_groups[0]["lr"] = reference.param_groups[1]["lr"] = rate
        nn.utils.clip_grad_norm_(theirs.parameters(), 5.0)
        reference.step()
        optimizer.update(rate, max_norm=5.0)
        assert torch.allclose(ours.weight, theirs.weight, rtol=0, atol=1e-6)
        assert torch.allclose(ours.bias, theirs.bias, rtol=0, atol=1e-6)


def test_a_parameter_left_out_of_the_loss_is_an_error():
    model = nn.Linear(2, 2)
    model(torch.ones(1, 2)).sum().backward()
    model.bias.grad = None
    with pytest.raises(ValueError, match="bias"):
        AdamW(model, weight_decay=0.0).update(0.1, max_norm=1.0)


def test_moving_average_warms_up_then_decays():
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    average = MovingAverage(model, 0.5)
    nn.init.ones_(model.weight)
    average.update(model, 0)  # decay min(0.5, 1/10)
    assert average.weights["weight"].item() == pytest.approx(0.9)
    average.update(model, 1000)
    assert average.weights["weight"].item() == pytest.approx(0.95)


def test_applied_weights_are_taken_back_bit_for_bit_even_after_an_error():
    model = nn.Linear(3, 2)
    model.bias.requires_grad_(requires_grad=False)
    average = MovingAverage(model, 0.9)
    with torch.no_grad():
        model.weight.mul_(1 / 3)
    own, averaged = model.weight.detach().clone(), average.weights["weight"].clone()
    places = {model.weight.data_ptr(), average.weights["weight"].data_ptr()}
    with pytest.raises(ZeroDivisionError), average.applied(model):
        _ = 1 / (0 if torch.equal(model.weight, averaged) else 1)
    assert torch.equal(model.weight, own)
    assert torch.equal(average.weights["weight"], averaged)
    assert {model.weight.data_ptr(), average.weights["weight"].data_ptr()} == places  # a third set would not fit


def test_rates_are_finite_for_the_shortest_run():
    assert all(math.isfinite(rate) for rate in rates(warmup_steps=1, total_steps=2))
