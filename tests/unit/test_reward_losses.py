"""Probabilities and losses of preferences, by hand, and the network's size."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from robolift.reward_model import linear
from robolift.reward_model.comparisons import Comparisons, split
from robolift.reward_model.design import Design
from robolift.reward_model.losses import pair_logits, pair_loss
from robolift.reward_model.metrics import interval, log_loss, log_probabilities, pair_accuracy, pair_auc, ranking
from robolift.reward_model.mlp import RewardNetwork

reward = st.floats(-20, 20)
A, B, TIE = [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.5, 0.5, 0.0]


def test_probabilities_by_hand() -> None:
    # sigmoid(ln 3) = 3 / 4; with beta 2, sigmoid(2 ln 3) = 9 / 10.
    difference = np.array([0.0, math.log(3), -math.log(3), 2 * math.log(3)])
    assert np.exp(log_probabilities(difference, None))[:, 0] == pytest.approx([0.5, 0.75, 0.25, 0.9])
    # Davidson with nu = 1 and d = 2 ln 2: weights 2, 1/2 and 1 of a sum of 3.5.
    assert np.exp(log_probabilities(np.array([2 * math.log(2)]), 0.0))[0] == pytest.approx([4 / 7, 1 / 7, 2 / 7])
    # Equal clips with nu = 2: a quarter each, half a tie.
    assert np.exp(log_probabilities(np.zeros(1), math.log(2)))[0] == pytest.approx([0.25, 0.25, 0.5])


def test_losses_by_hand() -> None:
    r_a, r_b = torch.tensor([math.log(3.0)]), torch.tensor([0.0])
    logits = pair_logits(r_a, r_b, beta=1.0)
    assert float(pair_loss(logits, torch.tensor([A]))) == pytest.approx(-math.log(0.75))
    assert float(pair_loss(logits, torch.tensor([B]))) == pytest.approx(-math.log(0.25))
    # A tie costs the mean of both: (0.2877 + 1.3863) / 2; of equal clips it costs ln 2, its least.
    assert float(pair_loss(logits, torch.tensor([TIE]))) == pytest.approx(0.8369882, abs=1e-6)
    assert float(pair_loss(pair_logits(r_b, r_b, beta=1.0), torch.tensor([TIE]))) == pytest.approx(math.log(2))
    with_ties = pair_logits(r_b, r_b, beta=1.0, tie_logit=torch.tensor(math.log(2)))
    assert float(pair_loss(with_ties, torch.tensor([[0.0, 0.0, 1.0]]))) == pytest.approx(math.log(2))


@settings(max_examples=50, deadline=None)
@given(a=reward, b=reward, beta=st.floats(0.1, 3), nu=st.none() | st.floats(-2, 2))
def test_exchanging_the_sides_exchanges_the_answer(a: float, b: float, beta: float, nu: float | None) -> None:
    r_a, r_b = torch.tensor([a], dtype=torch.float64), torch.tensor([b], dtype=torch.float64)
    tie = None if nu is None else torch.tensor(nu, dtype=torch.float64)
    one = pair_loss(pair_logits(r_a, r_b, beta=beta, tie_logit=tie), torch.tensor([A], dtype=torch.float64))
    other = pair_loss(pair_logits(r_b, r_a, beta=beta, tie_logit=tie), torch.tensor([B], dtype=torch.float64))
    assert float(one) == pytest.approx(float(other))
    # NumPy's and torch's are one formula.
    assert float(one) == pytest.approx(log_loss(np.array([beta * (a - b)]), np.array([A]), tie_logit=nu))


def test_the_network_has_the_prototypes_size() -> None:
    network = RewardNetwork(5 + 512)
    assert sum(p.numel() for p in network.parameters()) == 174_593
    assert set(network.heads) == {"human"}
    both = RewardNetwork(5 + 512, heads=("human", "robot"))
    assert both(torch.zeros(3, 517), "robot").shape == (3,)


def test_targets_of_ties() -> None:
    found = Comparisons.of(np.array([0, 1, 2]), np.array([1, 2, 0]), ["A", "tie", "B"])
    assert found.targets("soft").tolist() == [[1, 0, 0], [0.5, 0.5, 0], [0, 1, 0]]
    assert found.targets("davidson").tolist() == [[1, 0, 0], [0, 0, 1], [0, 1, 0]]
    assert len(found.without_ties()) == 2


def test_a_pair_with_one_clip_on_each_side_is_left_out() -> None:
    found = Comparisons.of(np.array([0, 0, 2, 3]), np.array([1, 2, 3, 1]), ["A"] * 4)
    known, unseen, crossing = split(found, np.array([False, False, True, True]))
    assert (known.a.tolist(), unseen.a.tolist(), crossing) == ([0], [2], 2)


def test_a_bootstrap_keeps_the_answers_about_two_clips_together() -> None:
    found = Comparisons.of(np.array([0, 1, 0, 2]), np.array([1, 0, 2, 3]), ["A", "B", "A", "A"])
    assert found.pair_codes().tolist() == [0, 0, 1, 2]
    for seed in range(20):
        sample = found.bootstrap(np.random.default_rng(seed))
        assert sample[0] == sample[1]
        assert sample[0] + sample[2] + sample[3] == 3


def test_pair_auc_by_hand() -> None:
    # Good 2 and 1 and -1, bad -2, -1, 1: above: 2 beats all three, 1 beats two and draws with 1, -1 beats -2, draws -1.
    assert pair_auc(np.array([2.0, 1.0, -1.0])) == pytest.approx((3 + 2.5 + 1.5) / 9)
    assert pair_accuracy(np.array([2.0, 0.0, -1.0])) == pytest.approx(0.5)
    assert pair_auc(np.zeros(4)) == 0.5
    assert pair_auc(np.array([0.1, 5.0])) == 1.0


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(-5, 5), min_size=1, max_size=30))
def test_pair_auc_is_the_auc_of_pairs_both_ways(margin: list[int]) -> None:
    from sklearn.metrics import roc_auc_score

    values = np.array(margin, np.float64)
    truth = np.repeat([1, 0], len(values))
    assert pair_auc(values) == pytest.approx(roc_auc_score(truth, np.concatenate([values, -values])))


def test_sides_do_not_matter_to_the_measures() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 20, size=(2, 50))
    said = rng.choice(["A", "B"], size=50)
    score = rng.normal(size=20)
    other = np.where(said == "A", "B", "A")
    one = ranking(score, Comparisons.of(a, b, said.tolist()), seed=0)
    assert ranking(score, Comparisons.of(b, a, other.tolist()), seed=0) == one
    assert one["pair_auc_low"] < one["pair_auc"] < one["pair_auc_high"]
    assert interval(pair_auc, np.ones(5), np.arange(5), seed=0) == (1.0, 1.0)


def test_many_answers_about_one_pair_do_not_narrow_the_interval() -> None:
    a, b = np.arange(0, 20, 2), np.arange(1, 20, 2)
    said = ["A"] * 6 + ["B"] * 4
    score = np.linspace(1.0, 0.0, 20)
    once = ranking(score, Comparisons.of(a, b, said), seed=0)
    ten_times = ranking(score, Comparisons.of(np.tile(a, 10), np.tile(b, 10), said * 10), seed=0)
    assert ten_times["pairs"] == 100
    for name in ("pair_auc", "pair_auc_low", "pair_auc_high"):
        assert ten_times[name] == pytest.approx(once[name])


def _synthetic(num: int, columns: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    difference, weights = rng.normal(size=(num, columns)), rng.normal(size=columns)
    said = rng.random(num) < 1 / (1 + np.exp(-difference @ weights))
    return difference, np.where(said[:, None], A, B), weights


@pytest.mark.parametrize(("penalty", "beta"), [(0.01, 1.0), (0.3, 1.0), (0.05, 2.0)])
def test_the_solver_finds_what_scikit_learn_finds(penalty: float, beta: float) -> None:
    difference, targets, _ = _synthetic(200, 6)
    ours = linear.fit(difference, targets, np.ones(200), penalty=penalty, beta=beta)
    oracle = LogisticRegression(C=1 / (200 * penalty), fit_intercept=False, tol=1e-10, max_iter=1000)
    oracle.fit(beta * difference, targets[:, 0])
    assert ours.weights == pytest.approx(oracle.coef_[0], abs=1e-5)


def test_weights_count_like_repeated_rows() -> None:
    difference, targets, _ = _synthetic(60, 4)
    counts = np.random.default_rng(1).integers(0, 4, size=60)
    rows = np.repeat(np.arange(60), counts)
    one = linear.fit(difference, targets, counts.astype(float), penalty=0.1)
    other = linear.fit(difference[rows], targets[rows], np.ones(len(rows)), penalty=0.1)
    assert one.weights == pytest.approx(other.weights, abs=1e-9)


def test_planted_weights_come_back() -> None:
    difference, targets, weights = _synthetic(20_000, 5, seed=3)
    found = linear.fit(difference, targets, np.ones(20_000), penalty=1e-4)
    assert found.weights == pytest.approx(weights, abs=0.1)
    assert all(after <= before for before, after in zip(found.losses, found.losses[1:], strict=False))


@pytest.mark.parametrize("ties", ["soft", "davidson"])
def test_the_solver_ends_where_torchs_gradient_is_zero(ties: str) -> None:
    rng = np.random.default_rng(5)
    found = Comparisons.of(*rng.integers(0, 30, size=(2, 120)), rng.choice(["A", "B", "tie"], size=120).tolist())
    design = rng.normal(size=(30, 4))
    difference, targets = design[found.a] - design[found.b], found.targets(ties)  # type: ignore[arg-type]
    made = linear.fit(difference, targets, np.ones(120), penalty=0.05, davidson=ties == "davidson")
    weights = torch.tensor(made.weights, requires_grad=True)
    tie = None if made.tie_logit is None else torch.tensor(made.tie_logit, dtype=torch.float64, requires_grad=True)
    score = torch.from_numpy(difference) @ weights
    loss = pair_loss(pair_logits(score, torch.zeros_like(score), beta=1.0, tie_logit=tie), torch.from_numpy(targets))
    loss = loss + 0.025 * (weights**2).sum()
    if tie is not None:
        loss = loss + linear.TIE_PENALTY / 2 * tie**2
    loss.backward()
    assert float(weights.grad.abs().max()) < 1e-6
    assert tie is None or float(tie.grad.abs()) < 1e-6
    assert len(made.losses) < 12  # Newton's steps, with the right curvature
    # With a third of all answers ties, nu must be clearly above 0.
    assert tie is None or math.exp(made.tie_logit) > 0.5


def test_exchanged_sides_give_the_same_weights() -> None:
    difference, targets, _ = _synthetic(80, 3)
    one = linear.fit(difference, targets, np.ones(80), penalty=0.1)
    other = linear.fit(-difference, targets[:, [1, 0, 2]], np.ones(80), penalty=0.1)
    assert one.weights == pytest.approx(other.weights, abs=1e-12)


def test_cross_validation_prefers_the_penalty_that_foretells() -> None:
    rng = np.random.default_rng(0)
    design = rng.normal(size=(60, 40))
    a, b = rng.integers(0, 60, size=(2, 150))
    keep = a != b
    coin = Comparisons.of(a[keep], b[keep], rng.choice(["A", "B"], size=int(keep.sum())).tolist())
    assert linear.choose_penalty(design, coin, beta=1.0, ties="soft", seed=0)[0] >= 0.3
    clear = np.where(design[a, 0] > design[b, 0], "A", "B")
    known = Comparisons.of(a[keep], b[keep], clear[keep].tolist())
    penalty, curve = linear.choose_penalty(design, known, beta=1.0, ties="soft", seed=0)
    assert penalty < 0.3
    assert [row["l2"] for row in curve] == list(linear.PENALTIES)


def test_the_curvature_is_torchs_hessian() -> None:
    rng = np.random.default_rng(2)
    columns = np.column_stack([rng.normal(size=(40, 3)), np.zeros(40)])
    targets = np.eye(3)[rng.integers(0, 3, size=40)]
    theta, weight = np.array([0.5, -1.0, 2.0, 0.3]), np.full(40, 1 / 40)

    def loss(given: torch.Tensor) -> torch.Tensor:
        score = torch.from_numpy(columns) @ given
        logits = pair_logits(score, torch.zeros_like(score), beta=1.0, tie_logit=given[-1])
        return pair_loss(logits, torch.from_numpy(targets))

    gradient, curvature = linear._derivatives(columns, targets, weight, theta, davidson=True)
    point = torch.from_numpy(theta).requires_grad_()
    assert gradient == pytest.approx(torch.autograd.grad(loss(point), point)[0].numpy())
    assert curvature == pytest.approx(torch.autograd.functional.hessian(loss, torch.from_numpy(theta)).numpy())


def test_a_design_is_measured_on_its_training_clips_alone() -> None:
    columns = {"blur": np.array([1.0, 3.0, 5.0, 1e6]), "flat": np.array([2.0, 2.0, 2.0, 9.0])}
    embedding = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0], [0.0, 50.0]])
    rows = np.array([True, True, True, False])
    design = Design.fit(columns, embedding, rows=rows, fields=("blur", "flat"), components=2)
    assert design.mean[:2] == pytest.approx([3.0, 2.0])
    # The second direction of the embedding is seen on the held-out clip alone, so there is one; a flat column is 0.
    seen = design.apply(columns, embedding)
    assert seen.shape == (4, 3)
    assert seen[:3, 0] == pytest.approx([-(1.5**0.5), 0.0, 1.5**0.5])
    assert seen[:, 1].tolist() == [0.0, 0.0, 0.0, 0.0]
    assert seen[:, 2] == pytest.approx([1.5**0.5, -(1.5**0.5), 0.0, 0.0])
