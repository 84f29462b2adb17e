"""What a value is read from: one dedicated head of the network, of one of three kinds.

* ``distribution`` (RECAP): atoms on [low, high], two-hot targets, cross-entropy; the value is the expectation.
* ``relative`` (kai0's KAI0): two frames of one episode; tanh, square error to the progress made from one to the other.
* ``single`` (kai0's PI06, with a target that one frame can tell): one frame; sigmoid, square error to its progress.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from robolift.value_model.losses import cross_entropy_rows, square_error_rows
from robolift.value_model.presets import Config

BLOCK_ROWS = 2048
"""Rows whose atoms stay in a core's cache, 1.6 MB for 201; a multiple of what matrix kernels take at a time, so that a
row in a block gets the bits that it gets in the whole."""


class Head(nn.Module):
    """How numbers of the last layer become a value; it has no weights of its own.

    Attributes:
        num_frames: Frames that one value takes: 1, or 2 with the comparison frame first.
        num_outputs: Numbers of the last layer, O.
        uniform_error: Mean square error of the best constant where progress is uniform on [0, 1]; None for a
            distribution, whose loss is no square error.
    """

    num_frames: int
    num_outputs: int
    uniform_error: float | None = None

    def loss_rows(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return each row's loss, (B,), of (B, O) logits and (B,) targets."""
        raise NotImplementedError

    def read(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return value and standard deviation, each (B,), of (B, O) logits; the latter is 0 where none is predicted."""
        raise NotImplementedError

    def value(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the value alone, (B,), of (B, O) logits."""
        return self.read(logits)[0]


class DistributionHead(Head):
    """A distribution over evenly spaced atoms."""

    support: torch.Tensor
    num_frames = 1

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.num_outputs, self.low, self.high = config.atoms, config.low, config.high
        # Made again from the configuration when a checkpoint is loaded.
        self.register_buffer("support", atoms(config.atoms, config.low, config.high), persistent=False)

    def loss_rows(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return each row's cross-entropy to the two-hot target."""
        return cross_entropy_rows(logits, two_hot(target, self.num_outputs, self.low, self.high))

    def read(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return expectation and standard deviation."""
        return expectation(logits, self.support)

    def value(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the expectation."""
        return expected(logits, self.support)


class ProgressHead(Head):
    """One number through a function that bounds it."""

    num_outputs = 1

    def __init__(
        self, num_frames: int, bounded: Callable[[torch.Tensor], torch.Tensor], *, uniform_error: float
    ) -> None:
        super().__init__()
        self.num_frames, self.bounded, self.uniform_error = num_frames, bounded, uniform_error

    def loss_rows(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return each row's square error."""
        return square_error_rows(self.bounded(logits[:, 0].float()), target)

    def read(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the number, and 0 for its unknown spread."""
        value = self.bounded(logits[:, 0].float())
        return value, torch.zeros_like(value)


def relative(_: Config) -> Head:
    """Return the two-frame head: f(a, b) in [-1, 1] is the progress at b less that at a."""
    # The difference of two independent uniform numbers has variance 1/6, one uniform number 1/12.
    return ProgressHead(2, torch.tanh, uniform_error=1 / 6)


def single(_: Config) -> Head:
    """Return the single-frame head: g(t) in [0, 1] is the progress at t."""
    return ProgressHead(1, torch.sigmoid, uniform_error=1 / 12)


HEADS: dict[str, Callable[[Config], Head]] = {
    "distribution": DistributionHead,
    "relative": relative,
    "single": single,
}


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

    Worked out BLOCK_ROWS rows at a time: besides the results it needs a few megabytes, however many rows there are.
    """
    mean, spread = (logits.new_empty(len(logits), dtype=torch.float32) for _ in range(2))
    for start in range(0, len(logits), BLOCK_ROWS):
        block = slice(start, start + BLOCK_ROWS)
        probability = torch.softmax(logits[block].float(), dim=-1)
        torch.mv(probability, support, out=mean[block])
        # Around the mean rather than E[v^2] - mean^2, which cancels where the distribution is narrow.
        spread[block] = (support - mean[block, None]).square_().mul_(probability).sum(-1).sqrt_()
    return mean, spread


def expected(logits: torch.Tensor, support: torch.Tensor) -> torch.Tensor:
    """Return the mean of softmax(logits) over the atoms, (B,); in blocks as :func:`expectation`."""
    mean = logits.new_empty(len(logits), dtype=torch.float32)
    for start in range(0, len(logits), BLOCK_ROWS):
        block = slice(start, start + BLOCK_ROWS)
        torch.mv(torch.softmax(logits[block].float(), dim=-1), support, out=mean[block])
    return mean
