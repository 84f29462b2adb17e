"""The loss of a preference: Bradley and Terry's (1952) probability, and Davidson's (1970) where a tie has its own."""

from __future__ import annotations

import torch


def pair_logits(
    reward_a: torch.Tensor, reward_b: torch.Tensor, *, beta: float, tie_logit: torch.Tensor | None = None
) -> torch.Tensor:
    """Return logits of A, B and, with ``tie_logit``, tie: (n, 2) or (n, 3).

    With d = beta (R_A - R_B) they are d / 2, -d / 2 and log nu, whose softmax is P(A) = sigmoid(d) without ties.

    Args:
        reward_a: (n,) reward of the first clips.
        reward_b: (n,) reward of the second clips.
        beta: How much a difference of rewards counts.
        tie_logit: () log nu; P(tie) = nu sqrt(P(A) P(B)).
    """
    half = beta * (reward_a - reward_b) / 2
    columns = [half, -half] if tie_logit is None else [half, -half, tie_logit.expand_as(half)]
    return torch.stack(columns, dim=-1)


def pair_loss(logits: torch.Tensor, targets: torch.Tensor, sample: torch.Tensor | None = None) -> torch.Tensor:
    """Return the cross-entropy of preferences, averaged with weights.

    A soft tie has the targets (0.5, 0.5): at equal rewards it costs log 2, its least.

    Args:
        logits: (n, 2) or (n, 3) as :func:`pair_logits` gives.
        targets: (n, 3) probabilities of A, B and tie; the third is not asked for where there are two logits.
        sample: (n,) how often each counts; None: once.
    """
    each = -(targets[:, : logits.shape[1]] * torch.log_softmax(logits, dim=-1)).sum(dim=-1)
    return each.mean() if sample is None else (sample * each).sum() / sample.sum()
