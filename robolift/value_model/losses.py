"""What the value model minimises."""

from __future__ import annotations

import torch


def cross_entropy_rows(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return each row's cross-entropy of softmax(logits), (B,); a uniform guess has ln(atoms).

    Args:
        logits: (B, atoms).
        target: (B, atoms), rows with sum 1.
    """
    return -(target * torch.log_softmax(logits.float(), dim=-1)).sum(-1)


def square_error_rows(value: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return each row's square error of (B,) values to (B,) targets, (B,)."""
    return (value - target).square()


def action_error(predicted: torch.Tensor, actions: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """Return the mean square error of action chunks over steps inside the episode.

    The sum is divided by the size of the whole chunk, not by the number of real steps: the mean over processes is then
    the mean over the batch however the batch is shared out.

    Args:
        predicted: (B, action_horizon, action_dim).
        actions: Same shape, normalised.
        real: (B, action_horizon) bool, False beyond the end of the episode.
    """
    return ((predicted - actions).square() * real[:, :, None]).mean()
