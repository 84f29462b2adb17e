"""How well rewards foretell comparisons that no model learned from."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from robolift.reward_model.comparisons import Comparisons, Ties

RESAMPLES = 2000


def margins(reward: np.ndarray, found: Comparisons) -> np.ndarray:
    """Return by how much the chosen clip's reward is above the other's, (n,), for comparisons without ties."""
    return np.asarray(found.sign * (reward[found.a] - reward[found.b]))


def pair_auc(margin: np.ndarray) -> float:
    """Return the symmetrised pair-AUC: every pair stands both ways, the chosen clip first (good) and second (bad).

    With margins m the good rows score m_i and the bad ones -m_j, so the AUC is the mean over all i, j of
    [m_i + m_j > 0], a sum of 0 counting half. Unlike an AUC over pairs as they were shown, it doesn't depend on the
    sides.

    Args:
        margin: (n,) with n > 0, as :func:`margins` gives.
    """
    ordered = np.sort(margin)
    below = np.searchsorted(ordered, -margin, side="left")
    upto = np.searchsorted(ordered, -margin, side="right")
    return float((len(margin) - (below + upto) / 2).mean() / len(margin))


def pair_accuracy(margin: np.ndarray) -> float:
    """Return the share of pairs whose chosen clip has the higher reward, equal rewards counting half."""
    return float(((margin > 0) + 0.5 * (margin == 0)).mean())


def log_loss(difference: np.ndarray, targets: np.ndarray, *, tie_logit: float | None = None) -> float:
    """Return the mean cross-entropy of the answers, in nats.

    Args:
        difference: (n,) beta (R_A - R_B).
        targets: (n, 3) probabilities of A, B and tie.
        tie_logit: log of Davidson's nu; None: there are no ties (they are half an A and half a B).
    """
    return float(-(targets * log_probabilities(difference, tie_logit)).sum(axis=1).mean())


def log_probabilities(difference: np.ndarray, tie_logit: float | None) -> np.ndarray:
    """Return the logarithms of P(A), P(B) and P(tie), (n, 3); that of a tie is 0 where there are none.

    Softmax of d / 2, -d / 2 and log nu: Bradley and Terry's sigmoid(d) without the third, Davidson's (1970) model,
    P(tie) / sqrt(P(A) P(B)) = nu, with it.
    """
    columns = [difference / 2, -difference / 2]
    if tie_logit is not None:
        columns.append(np.full(len(difference), tie_logit))
    logits = np.stack(columns, axis=1)
    top = logits.max(axis=1, keepdims=True)
    found = logits - top - np.log(np.exp(logits - top).sum(axis=1, keepdims=True))
    return found if tie_logit is not None else np.pad(found, ((0, 0), (0, 1)))


def interval(
    measure: Callable[[np.ndarray], float],
    margin: np.ndarray,
    pair: np.ndarray,
    *,
    seed: int,
    confidence: float = 0.95,
) -> tuple[float, float]:
    """Return the bootstrap percentile interval of ``measure`` over pairs.

    Pairs are drawn, not answers: what ten people say of two clips is far less than what they say of twenty.

    Args:
        measure: Of margins.
        margin: (n,) with n > 0, one for each answer.
        pair: (n,) the pair that each answer is about, 0, 1, ...
        seed: Of the draws.
        confidence: Of the interval.
    """
    num = int(pair.max()) + 1
    rng = np.random.default_rng([seed, num])
    draws = (np.bincount(rng.integers(num, size=num), minlength=num)[pair] for _ in range(RESAMPLES))
    found = [measure(np.repeat(margin, counts)) for counts in draws]
    low, high = np.quantile(found, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def ranking(reward: np.ndarray, found: Comparisons, *, seed: int) -> dict[str, Any]:
    """Return how well a reward orders comparisons: pair-AUC with its 95 % interval, accuracy, and their number."""
    decided = found.without_ties()
    margin = margins(reward, decided)
    if len(margin) == 0:
        return {"pairs": 0, "pair_auc": None, "pair_auc_low": None, "pair_auc_high": None, "accuracy": None}
    low, high = interval(pair_auc, margin, decided.pair_codes(), seed=seed)
    return {
        "pairs": len(margin),
        "pair_auc": pair_auc(margin),
        "pair_auc_low": low,
        "pair_auc_high": high,
        "accuracy": pair_accuracy(margin),
    }


def evaluate(
    reward: np.ndarray, found: Comparisons, *, beta: float, ties: Ties, tie_logit: float | None, seed: int
) -> dict[str, Any]:
    """Return :func:`ranking` and the loss of a model's rewards; the loss of knowing nothing is log 2 without ties."""
    asked = found.without_ties() if ties == "drop" else found
    loss = None
    if len(asked):
        difference = beta * (reward[asked.a] - reward[asked.b])
        loss = log_loss(difference, asked.targets(ties), tie_logit=tie_logit)
    return {**ranking(reward, found, seed=seed), "loss": loss, "chance_loss": math.log(2)}
