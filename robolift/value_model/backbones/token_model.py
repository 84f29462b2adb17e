"""A value read from a token of its own, which a language model appends to images and task.

The sequence is [patches of frame 1, camera by camera | of frame 2 for a head that compares | prompt | value token].
Patches and prompt see each other in both directions and never the value token, so all that the towers have learned
stays as it was; the value token sees everything, and its last hidden state is all that the head reads. No action, noise
or flow time goes in (kai0's estimator reads its value from a noisy action, so that it is another one each time).

Positions count real tokens only, so padding between prompt and value token changes nothing. All layers attend over the
whole sequence: images are no text that slides by (RECAP's public code masks likewise). RECAP's mean over all tokens and
its extra attention of text to images are left out: the value token attends to both in every layer.
"""

from __future__ import annotations

import itertools
import math
from contextlib import nullcontext

import torch
from torch import nn

from robolift.value_model import heads
from robolift.value_model.backbones.encoder import to_pixels
from robolift.value_model.backbones.towers import language_tower, vision_tower, without_weights
from robolift.value_model.network import ModelShape, ValueNetwork
from robolift.value_model.presets import TokenModelConfig
from robolift.value_model.text import PADDING


class ValueTokenModel(ValueNetwork):
    """A SigLIP tower, a Gemma tower, a value token and a head; see the module for what it computes.

    Args:
        config: Architecture.
        shape: What the dataset decides.
        empty_towers: Whether the towers' weights are on the ``meta`` device, until they are read from a file.

    Attributes:
        config: Architecture.
    """

    compact = False

    def __init__(self, config: TokenModelConfig, shape: ModelShape, *, empty_towers: bool = False) -> None:
        super().__init__()
        self.config, self.shape = config, shape
        width = config.language.width
        self.num_features = shape.num_cameras * config.vision.num_patches * config.vision.width
        making = without_weights if empty_towers else nullcontext
        with making():
            self.vision = vision_tower(config.vision)
        self.projector = nn.Linear(config.vision.width, width)
        with making():
            self.language = language_tower(config.language)
        # As large as an embedded word.
        self.value_token = nn.Parameter(torch.randn(width) * self.language.config.initializer_range * math.sqrt(width))
        self.head = heads.HEADS[config.head](config)
        self.value_head = _mlp((width, *config.head_widths, self.head.num_outputs))
        # Made again from the prompts when a checkpoint is loaded.
        self.register_buffer("tokens", token_rows(shape.prompts), persistent=False)

    def encode(self, images: torch.Tensor, gain: torch.Tensor | None = None) -> torch.Tensor:
        """Return the (B, F) patches of (B, K, H, W, 3) uint8 images, all cameras through one tower."""
        views = to_pixels(images.flatten(0, 1), None if gain is None else gain.flatten())
        patches: torch.Tensor = self.vision(pixel_values=views).last_hidden_state
        return patches.float().reshape(len(images), -1)

    def value_logits(self, features: torch.Tensor, state: torch.Tensor, task: torch.Tensor) -> torch.Tensor:
        """Return the (B, O) outputs that :attr:`head` reads the value from; ``state`` is not looked at."""
        hidden = self.hidden(features, task)[:, -1]
        with torch.autocast(hidden.device.type, enabled=False):
            logits: torch.Tensor = self.value_head(hidden.float())
        return logits

    def hidden(self, features: torch.Tensor, task: torch.Tensor) -> torch.Tensor:
        """Return the last hidden states (B, L, width) of patches, prompt and value token; the latter stands last."""
        patches = self.projector(features.reshape(len(features), -1, self.config.vision.width))
        prompt = self.tokens[task]
        text = self.language.embed_tokens(prompt.clamp(min=0))
        value = self.value_token.expand(len(text), 1, -1)
        sequence = torch.cat([patches.to(text.dtype), text, value.to(text.dtype)], dim=1)
        real = torch.ones(sequence.shape[:2], dtype=torch.bool, device=sequence.device)
        real[:, patches.shape[1] : -1] = prompt != PADDING
        mask = attention_mask(real)
        last: torch.Tensor = self.language(
            inputs_embeds=sequence,
            attention_mask=(
                {"full_attention": mask, "sliding_attention": mask} if self.config.language.family == "gemma3" else mask
            ),
            position_ids=real.cumsum(1) - 1,
            use_cache=False,
        ).last_hidden_state
        return last


def attention_mask(real: torch.Tensor) -> torch.Tensor:
    """Return who attends to whom, (B, 1, L, L) bool by query and key: real tokens, and only the last to the last.

    Args:
        real: (B, L) which tokens are not padding.
    """
    length = real.shape[1]
    before = torch.arange(length, device=real.device) < length - 1
    sees = before[None, :] | ~before[:, None]
    return (real[:, None, :] & sees)[:, None]


def token_rows(prompts: tuple[tuple[int, ...], ...]) -> torch.Tensor:
    """Return prompts as one (number, longest) int64 tensor, filled up with PADDING."""
    rows = torch.full((len(prompts), max(map(len, prompts))), PADDING, dtype=torch.int64)
    for row, prompt in zip(rows, prompts, strict=True):
        row[: len(prompt)] = torch.tensor(prompt)
    return rows


def _mlp(widths: tuple[int, ...]) -> nn.Sequential:
    """Return a norm and linear layers of these widths with GELU between them."""
    layers: list[nn.Module] = [nn.LayerNorm(widths[0])]
    for width_in, width_out in itertools.pairwise(widths):
        layers += [nn.Linear(width_in, width_out), nn.GELU()]
    return nn.Sequential(*layers[:-1])
