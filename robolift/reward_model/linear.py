"""Bradley-Terry regression: a reward that is a weighted sum of features, fitted exactly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from robolift.reward_model.comparisons import Comparisons, Ties
from robolift.reward_model.metrics import log_loss, log_probabilities

PENALTIES = (1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)
FOLDS = 5
MAX_STEPS = 100
TOLERANCE = 1e-10
TIE_PENALTY = 1e-4
"""Keeps Davidson's nu finite where nobody ever said tie."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Fit:
    """A fitted model.

    Attributes:
        weights: (columns,).
        tie_logit: log of Davidson's nu, None without.
        losses: Penalized loss before each step of the solver and at the end.
    """

    weights: np.ndarray
    tie_logit: float | None
    losses: tuple[float, ...]


def fit(
    difference: np.ndarray,
    targets: np.ndarray,
    sample: np.ndarray,
    *,
    penalty: float,
    beta: float = 1.0,
    davidson: bool = False,
) -> Fit:
    """Minimize the mean cross-entropy of the answers plus penalty / 2 |w|², by Newton's method with halved steps.

    The problem is convex, so the result depends on the data alone. There is no intercept: exchanging A and B changes
    nothing.

    Args:
        difference: (n, columns) float64, the first clip's columns minus the second's.
        targets: (n, 3) probabilities of A, B and tie.
        sample: (n,) how often each answer counts.
        penalty: Of the squared weights, above 0.
        beta: P(A > B) = sigmoid(beta (R_A - R_B)).
        davidson: Whether a tie has a probability of its own.
    """
    columns = np.column_stack([beta * difference, np.zeros(len(difference))]) if davidson else beta * difference
    weight = sample / sample.sum()
    ridge = np.full(columns.shape[1], penalty)
    if davidson:
        ridge[-1] = TIE_PENALTY

    def loss(theta: np.ndarray) -> float:
        found = log_probabilities(columns @ theta, theta[-1] if davidson else None)
        return float(-(weight @ (targets * found).sum(axis=1)) + 0.5 * (ridge * theta**2).sum())

    theta = np.zeros(columns.shape[1])
    losses = [loss(theta)]
    for _ in range(MAX_STEPS):
        gradient, curvature = _derivatives(columns, targets, weight, theta, davidson=davidson)
        gradient += ridge * theta
        step = np.linalg.solve(curvature + np.diag(ridge), gradient)
        size = 1.0
        while loss(theta - size * step) > losses[-1] and size > 1e-8:
            size /= 2
        theta = theta - size * step
        losses.append(loss(theta))
        if losses[-2] - losses[-1] < TOLERANCE:
            break
    return Fit(
        weights=theta[: difference.shape[1]],
        tie_logit=float(theta[-1]) if davidson else None,
        losses=tuple(losses),
    )


def _derivatives(
    columns: np.ndarray, targets: np.ndarray, weight: np.ndarray, theta: np.ndarray, *, davidson: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return gradient and Hessian of the mean cross-entropy, of d = columns w and of log nu where there is one.

    With logits (d / 2, -d / 2, log nu): dL/dd = ((P_A - y_A) - (P_B - y_B)) / 2, dL/dlog nu = P_tie - y_tie; the
    second derivatives are the covariances of ([A] - [B]) / 2 and [tie] under P.
    """
    chance = np.exp(log_probabilities(columns @ theta, theta[-1] if davidson else None))
    if not davidson:
        chance[:, 2] = 0.0
    error = chance - targets
    slope = weight * (error[:, 0] - error[:, 1]) / 2
    lead = (chance[:, 0] - chance[:, 1]) / 2
    bend = weight * ((chance[:, 0] + chance[:, 1]) / 4 - lead**2)
    gradient = columns.T @ slope
    curvature = (columns * bend[:, None]).T @ columns
    if davidson:
        gradient[-1] = weight @ error[:, 2]
        curvature[-1] = curvature[:, -1] = -columns.T @ (weight * lead * chance[:, 2])
        curvature[-1, -1] = weight @ (chance[:, 2] * (1 - chance[:, 2]))
    return gradient, curvature


def choose_penalty(
    design: np.ndarray, found: Comparisons, *, beta: float, ties: Ties, seed: int
) -> tuple[float, list[dict[str, Any]]]:
    """Return the penalty of least loss in cross-validation inside these comparisons, and the loss of each.

    Answers about the same two clips are in one fold. Of equal losses the larger penalty wins.

    Args:
        design: (clips, columns).
        found: Comparisons to learn from.
        beta: As in :func:`fit`.
        ties: What a tie is.
        seed: Of the folds.
    """
    codes = found.pair_codes()
    num_pairs = int(codes.max()) + 1
    folds = min(FOLDS, num_pairs)
    if folds < 2:
        return PENALTIES[-1], []
    fold = (np.random.default_rng([seed, num_pairs]).permutation(num_pairs) % folds)[codes]
    difference, targets = design[found.a] - design[found.b], found.targets(ties)
    davidson = ties == "davidson"
    curve = []
    for penalty in PENALTIES:
        total = 0.0
        for number in range(folds):
            out = fold == number
            made = fit(
                difference[~out],
                targets[~out],
                np.ones(int((~out).sum())),
                penalty=penalty,
                beta=beta,
                davidson=davidson,
            )
            missed = log_loss(beta * difference[out] @ made.weights, targets[out], tie_logit=made.tie_logit)
            total += missed * int(out.sum())
        curve.append({"l2": penalty, "loss": total / len(found)})
    best = min(curve, key=lambda row: (row["loss"], -row["l2"]))
    return best["l2"], curve
