"""The value network: encoders per camera, state, task text, a trunk, and a head that nothing else writes to.

No action, noise or flow time goes in, so a value depends on the observation and the task alone. A two-frame head takes
two observations of one episode through the same encoders and state layer; what it takes twice has a dimension P = 2
after the batch, the comparison frame first. P may be left out where it is 1.

Shape letters: B batch, P frames of a value, K cameras, H W image, S state, F features of all cameras, O outputs of the
head, A action, T action horizon.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import nn

from robolift.value_model import heads
from robolift.value_model.backbones.encoder import ImageEncoder
from robolift.value_model.network import ModelShape, ValueNetwork
from robolift.value_model.presets import ValueModelConfig
from robolift.value_model.text import PADDING, token_table


def _layers(widths: Sequence[int]) -> nn.Sequential:
    """Return linear layers of these widths, each followed by SiLU."""
    layers: list[nn.Module] = []
    for width_in, width_out in itertools.pairwise(widths):
        layers += [nn.Linear(width_in, width_out), nn.SiLU()]
    return nn.Sequential(*layers)


class ValueModel(ValueNetwork):
    """The value of an observation, or of one compared with another, and an auxiliary guess of the actions it leads to.

    Attributes:
        config: Architecture.
    """

    def __init__(self, config: ValueModelConfig, shape: ModelShape) -> None:
        super().__init__()
        self.config, self.shape = config, shape
        self.num_features = shape.num_cameras * config.encoder.num_features
        self.encoder = nn.ModuleList(ImageEncoder(config.encoder) for _ in range(shape.num_cameras))
        state_width = config.state_width if shape.state_dim else 0
        self.state = _layers([shape.state_dim, state_width]) if state_width else None
        self.text = nn.Embedding(config.text_buckets, config.text_width)
        self.head = heads.HEADS[config.head](config)
        seen = self.head.num_frames * (self.num_features + state_width)
        self.trunk = _layers([seen + config.text_width, *config.trunk_widths])
        self.value_head = nn.Linear(config.trunk_widths[-1], self.head.num_outputs)
        self.action_head: nn.Sequential | None = None
        if shape.action_horizon:
            hidden = _layers([self.num_features + shape.state_dim, *config.action_widths])
            hidden.append(nn.Linear(config.action_widths[-1], shape.action_horizon * shape.action_dim))
            self.action_head = hidden
        # Made again from the tasks when a checkpoint is loaded.
        tokens = torch.from_numpy(token_table(shape.tasks, config.text_buckets))
        self.register_buffer("tokens", tokens, persistent=False)

    def encode(self, images: torch.Tensor, gain: torch.Tensor | None = None) -> torch.Tensor:
        """Return the (B, F) features of (B, K, H, W, 3) uint8 images; ``gain`` is (B, K) or None."""
        return torch.cat(
            [encoder(images[:, k], None if gain is None else gain[:, k]) for k, encoder in enumerate(self.encoder)],
            dim=-1,
        )

    def value_logits(self, features: torch.Tensor, state: torch.Tensor, task: torch.Tensor) -> torch.Tensor:
        """Return the (B, O) outputs that :attr:`head` reads the value from.

        Args:
            features: (B, P, F) from :meth:`encode`, F = 0 without cameras.
            state: (B, P, S) normalised.
            task: (B,) int64 task index.
        """
        real = (self.tokens != PADDING)[:, :, None]
        embedded = self.text(self.tokens.clamp(min=0)) * real
        text = embedded.sum(1) / real.sum(1)
        seen = [features] if self.state is None else [features, self.state(state)]
        parts = [*(part.flatten(1) for part in seen), text[task]]
        logits: torch.Tensor = self.value_head(self.trunk(torch.cat(parts, dim=-1)))
        return logits

    def actions(self, features: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
        """Return the (B, T, A) normalised actions that the auxiliary head expects from now on."""
        assert self.action_head is not None
        flat: torch.Tensor = self.action_head(torch.cat([features, state], dim=-1))
        return flat.view(len(flat), self.shape.action_horizon, self.shape.action_dim)
