"""Training of the network reward, one member of an ensemble at a time."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from robolift.errors import DataError
from robolift.reward_model.comparisons import Comparisons
from robolift.reward_model.losses import pair_logits, pair_loss
from robolift.reward_model.mlp import RewardNetwork
from robolift.reward_model.recipe import Recipe
from robolift.training.device import threads
from robolift.training.optim import AdamW

MIN_DELTA = 1e-3
"""A held-out loss counts as better if it is lower by this."""
PLATEAU = 10
"""Epochs without a better loss after which the rate halves."""


class _Judge(nn.Module):
    """The network, and log nu where ties have a probability of their own."""

    def __init__(self, num_inputs: int, *, davidson: bool) -> None:
        super().__init__()
        self.network = RewardNetwork(num_inputs)
        self.tie_logit = nn.Parameter(torch.zeros(())) if davidson else None

    def loss(self, design: torch.Tensor, batch: _Batch, beta: float) -> torch.Tensor:
        rewards = self.network(torch.cat([design[batch.a], design[batch.b]]))
        first, second = rewards[: len(batch.a)], rewards[len(batch.a) :]
        return pair_loss(pair_logits(first, second, beta=beta, tie_logit=self.tie_logit), batch.targets, batch.sample)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Batch:
    a: torch.Tensor
    b: torch.Tensor
    targets: torch.Tensor
    sample: torch.Tensor

    def where(self, rows: np.ndarray) -> _Batch:
        chosen = torch.from_numpy(rows)
        return _Batch(a=self.a[chosen], b=self.b[chosen], targets=self.targets[chosen], sample=self.sample[chosen])


def train_member(
    design: np.ndarray, found: Comparisons, sample: np.ndarray, recipe: Recipe, *, seed: int
) -> tuple[dict[str, np.ndarray], float | None, list[dict[str, Any]]]:
    """Train one network on the sampled answers, and stop by those that the sample left out.

    Stopping never looks at the held-out participants, so that what is measured on them is not chosen by them.

    Args:
        design: (clips, columns) what the network sees.
        found: Comparisons to learn from.
        sample: (n,) how often each answer counts; those with 0 decide when to stop.
        recipe: How it is trained.
        seed: Of the start, the order and the dropout.

    Returns:
        The network's weights after its best epoch, log nu or None, and the loss of each epoch. They don't depend on how
        many cores there are: one thread computes.

    Raises:
        DataError: If no answer is left to learn from, or none to stop by.
    """
    with threads(1), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        judge = _Judge(design.shape[1], davidson=recipe.ties == "davidson")
        curve = _train(judge, torch.from_numpy(design.astype(np.float32)), found, sample, recipe, seed=seed)
    weights = {name: tensor.numpy() for name, tensor in judge.network.state_dict().items()}
    return weights, None if judge.tie_logit is None else float(judge.tie_logit.detach()), curve


def _train(
    judge: _Judge, design: torch.Tensor, found: Comparisons, sample: np.ndarray, recipe: Recipe, *, seed: int
) -> list[dict[str, Any]]:
    everything = _Batch(
        a=torch.from_numpy(found.a),
        b=torch.from_numpy(found.b),
        targets=torch.from_numpy(found.targets(recipe.ties).astype(np.float32)),
        sample=torch.from_numpy(np.where(sample > 0, sample, 1).astype(np.float32)),
    )
    inside, outside = np.flatnonzero(sample > 0), np.flatnonzero(sample == 0)
    if not len(inside) or not len(outside):
        raise DataError(
            f"{len(sample)} answers are too few for a network: all would be learned from, and none tell when to stop",
            where="preferences.parquet",
            expected="several pairs within the training clips",
            mend="compare more pairs, or use the linear model",
        )
    rng = np.random.default_rng([seed, len(found)])
    optimizer = AdamW(judge, weight_decay=recipe.weight_decay)
    rate, best, waited, kept = recipe.learning_rate, float("inf"), 0, copy.deepcopy(judge.state_dict())
    curve: list[dict[str, Any]] = []
    for epoch in range(recipe.epochs):
        losses = _epoch(judge, design, everything, rng.permutation(inside), recipe, optimizer, rate)
        judge.eval()
        with torch.no_grad():
            validation = float(judge.loss(design, everything.where(outside), recipe.beta))
        row = {"epoch": epoch, "train_loss": losses, "validation_loss": validation, "learning_rate": rate}
        curve.append(row)
        if validation < best - MIN_DELTA:
            best, waited, kept = validation, 0, copy.deepcopy(judge.state_dict())
            continue
        waited += 1
        if waited >= recipe.patience:
            break
        if waited % PLATEAU == 0:
            rate /= 2
    judge.load_state_dict(kept)
    return curve


def _epoch(
    judge: _Judge,
    design: torch.Tensor,
    everything: _Batch,
    order: np.ndarray,
    recipe: Recipe,
    optimizer: AdamW,
    rate: float,
) -> float:
    """Make one pass in batches and return the mean loss."""
    judge.train()
    total = 0.0
    for start in range(0, len(order), recipe.batch_size):
        rows = order[start : start + recipe.batch_size]
        loss = judge.loss(design, everything.where(rows), recipe.beta)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.update(rate, max_norm=float("inf"))
        total += float(loss.detach()) * len(rows)
    return total / len(order)


def rewards(weights: dict[str, np.ndarray], design: np.ndarray) -> np.ndarray:
    """Return a network's rewards of clips, (n,) float64.

    Raises:
        RuntimeError: If the weights are of another network.
    """
    network = RewardNetwork(design.shape[1])
    network.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in weights.items()})
    with threads(1), torch.no_grad():
        return np.asarray(network.eval()(torch.from_numpy(design.astype(np.float32))).double().numpy())
