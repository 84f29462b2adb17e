from __future__ import annotations

import math

import pytest
import torch

from robolift.value_model import heads, losses


def test_atoms_are_two_hundred_and_one_from_minus_one_to_zero():
    support = heads.atoms(201, -1.0, 0.0)
    assert support[[0, 1, 100, 200]].tolist() == pytest.approx([-1, -0.995, -0.5, 0])


def test_two_hot_splits_a_value_between_its_neighbours():
    target = heads.two_hot(torch.tensor([-0.5025, -1.0, 0.0, -0.3]), 201, -1.0, 0.0)
    assert target[0, 99:101].tolist() == pytest.approx([0.5, 0.5], abs=1e-4)
    assert target[1, 0] == 1
    assert target[2, 200] == 1
    assert target[3, 140] == pytest.approx(1, abs=1e-4)


def test_two_hot_rows_are_probabilities_with_the_value_as_expectation():
    values = torch.linspace(-1, 0, 777)
    target = heads.two_hot(values, 201, -1.0, 0.0)
    assert target.min() >= 0
    assert torch.allclose(target.sum(1), torch.ones(777), atol=1e-6)
    assert torch.allclose(target @ heads.atoms(201, -1.0, 0.0), values, atol=1e-6)
    assert (target > 0).sum(1).max() == 2


def test_values_outside_the_support_are_clipped():
    target = heads.two_hot(torch.tensor([-7.0, 3.0]), 11, -1.0, 0.0)
    assert target[0, 0] == 1
    assert target[1, 10] == 1


def test_expectation_and_spread_of_known_distributions():
    support = heads.atoms(5, -1.0, 0.0)
    uniform, narrow = torch.zeros(5), torch.tensor([0.0, 0, 200, 0, 0])
    two = torch.tensor([-200.0, -200, 0, -200, 0])  # half at -0.5, half at 0
    mean, std = heads.expectation(torch.stack([uniform, narrow, two]), support)
    assert mean.tolist() == pytest.approx([-0.5, -0.5, -0.25])
    assert std.tolist() == pytest.approx([math.sqrt(0.125), 0, 0.25], abs=1e-6)


@pytest.mark.parametrize("rows", [1, 2048, 2049, 6001])
def test_an_expectation_in_blocks_has_the_bits_of_the_whole(rows):
    logits = 3 * torch.randn(rows, 201, generator=torch.Generator().manual_seed(rows))
    support = heads.atoms(201, -1.0, 0.0)
    probability = torch.softmax(logits, dim=-1)
    mean, spread = heads.expectation(logits, support)
    assert torch.equal(mean, probability @ support)
    assert torch.equal(spread, (probability * (support - mean[:, None]).square()).sum(-1).sqrt())
    assert torch.equal(heads.expected(logits, support), mean)
    exact = torch.softmax(logits.double(), dim=-1) @ support.double()
    assert (mean - exact).abs().max() < 1e-6


def test_cross_entropy_of_a_uniform_guess_is_ln_atoms():
    target = heads.two_hot(torch.tensor([-0.1234, -0.9]), 201, -1.0, 0.0)
    assert losses.cross_entropy_rows(torch.zeros(2, 201), target).tolist() == pytest.approx(
        [math.log(201)] * 2, rel=1e-6
    )
    sharp = target.clamp(min=1e-30).log()
    entropy = -(target * sharp).sum(1)
    assert torch.allclose(losses.cross_entropy_rows(sharp, target), entropy, atol=1e-5)


def test_action_error_counts_real_steps_only_and_averages_alike_over_parts():
    predicted, actions = torch.zeros(4, 3, 2), torch.ones(4, 3, 2)
    real = torch.tensor([[True, True, True], [True, False, False], [True, True, False], [False, False, False]])
    whole = losses.action_error(predicted, actions, real)
    assert whole.item() == pytest.approx(6 / 12)
    parts = [losses.action_error(predicted[i : i + 2], actions[i : i + 2], real[i : i + 2]) for i in (0, 2)]
    assert torch.stack(parts).mean().item() == pytest.approx(whole.item())
