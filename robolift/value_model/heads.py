"""The value head's distribution: atoms on [low, high], two-hot targets, expectation and spread."""

from __future__ import annotations

import torch


def atoms(num_atoms: int, low: float, high: float, *, device: torch.device | None = None) -> torch.Tensor:
    """Return the (num_atoms,) evenly spaced values of the distribution."""
    return torch.linspace(low, high, num_atoms, device=device)


def two_hot(values: torch.Tensor, num_atoms: int, low: float, high: float) -> torch.Tensor:
    """Spread each value over its two neighbouring atoms so that the expectation is the value.

    The target of RECAP's value function as public code trains it (pistar, Evo-RL): linear interpolation, no smoothing.

    Args:
        values: (B,) in [low, high]; what lies outside is clipped.
        num_atoms: Atoms of the distribution.
        low: First atom.
        high: Last atom.

    Returns:
        (B, num_atoms) non-negative rows with sum 1.
    """
    position = (values.clamp(low, high) - low) * ((num_atoms - 1) / (high - low))
    lower = position.floor().clamp(max=num_atoms - 2)
    upper_share = (position - lower)[:, None]
    index = lower.long()[:, None]
    target = values.new_zeros(len(values), num_atoms)
    target.scatter_(1, index, 1 - upper_share)
    return target.scatter_(1, index + 1, upper_share)


def expectation(logits: torch.Tensor, support: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and standard deviation of softmax(logits) over the atoms, each (B,).

    Call it on one batch at a time: what it needs besides is as large as the logits.
    """
    probability = torch.softmax(logits.float(), dim=-1)
    mean = probability @ support
    # Around the mean rather than E[v^2] - mean^2, which cancels where the distribution is narrow.
    variance = (probability * (support - mean[:, None]).square()).sum(-1)
    return mean, variance.sqrt()
