"""What every value network offers, whatever its size, so that training, prediction and checkpoints are shared."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from robolift.value_model.heads import Head


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """What the dataset decides about a value model.

    Attributes:
        num_cameras: K, may be 0.
        state_dim: S, may be 0.
        tasks: Task texts, by task index.
        action_dim: A, 0 for no action head.
        action_horizon: T, 0 for no action head.
        prompts: Token ids of each task's prompt; none where the model hashes words instead.
    """

    num_cameras: int
    state_dim: int
    tasks: tuple[str, ...]
    action_dim: int = 0
    action_horizon: int = 0
    prompts: tuple[tuple[int, ...], ...] = ()


class ValueNetwork(nn.Module):
    """The value of an observation, or of one compared with another, and maybe the actions it leads to.

    Attributes:
        shape: What the dataset decides.
        num_features: F, numbers of a frame that :meth:`encode` gives.
        head: How the outputs of :meth:`value_logits` become a value.
        tokens: (number of tasks, longest) int64 tokens of the task texts.
        compact: Whether features are few enough to be stored for each frame and to train a policy on; such a network
            keeps everything behind them in float32, where bfloat16 would gain nothing.
    """

    shape: ModelShape
    num_features: int
    head: Head
    tokens: torch.Tensor
    compact: bool = True

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.tokens.device

    def autocast(self, precision: str) -> torch.autocast:
        """Return a context in which images and text are computed in ``precision``, ``float32`` or ``bfloat16``."""
        return torch.autocast(
            self.device.type,
            torch.bfloat16,
            enabled=precision == "bfloat16",
            # Each weight of a tower is used once a pass: a copy in bfloat16 kept for all of it would only take memory.
            cache_enabled=self.compact,
        )

    def encode(self, images: torch.Tensor, gain: torch.Tensor | None = None) -> torch.Tensor:
        """Return the (B, F) features of (B, K, H, W, 3) uint8 images; ``gain`` is (B, K) or None."""
        raise NotImplementedError

    def value_logits(self, features: torch.Tensor, state: torch.Tensor, task: torch.Tensor) -> torch.Tensor:
        """Return the (B, O) outputs that :attr:`head` reads the value from.

        Args:
            features: (B, P, F) from :meth:`encode`, F = 0 without cameras.
            state: (B, P, S) normalised.
            task: (B,) int64 task index.
        """
        raise NotImplementedError

    def actions(self, features: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
        """Return the (B, T, A) normalised actions that the auxiliary head expects from now on."""
        raise NotImplementedError
