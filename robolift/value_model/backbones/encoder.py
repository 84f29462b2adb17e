"""A small convolutional encoder that says where each of its channels looks and what it sees there.

Convolutions followed by a spatial soft-argmax (Finn et al. 2016, "Deep spatial autoencoders", with a learned
temperature per channel) and the activation under the same attention. The policy computes the same function in JAX from
the same weights, so a change here is a change there.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from robolift.value_model.presets import EncoderConfig


class ImageEncoder(nn.Module):
    """Encoder of one camera; see the module for what it computes."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        previous = 3
        for j, (channels, kernel, stride) in enumerate(
            zip(config.channels, config.kernels, config.strides, strict=True)
        ):
            self.add_module(f"conv{j}", nn.Conv2d(previous, channels, kernel, stride, kernel // 2))
            previous = channels
        self.log_temperature = nn.Parameter(torch.zeros(previous))

    def forward(self, images: torch.Tensor, gain: torch.Tensor | None = None) -> torch.Tensor:
        """Return the features of a batch of images.

        Args:
            images: (B, H, W, 3) uint8 RGB.
            gain: (B,) factor on the brightness of each image, saturating at white; None leaves it alone.

        Returns:
            (B, 3C) float32: for each of the C channels its mean x, then its mean y, both in [-1, 1] over the image,
            then its attended activation.
        """
        pixels = to_pixels(images, gain)
        last = len(self.config.channels) - 1
        for j in range(last + 1):
            pixels = cast("nn.Module", getattr(self, f"conv{j}"))(pixels)
            if j < last:
                pixels = torch.relu_(pixels)
        return soft_argmax(pixels.float(), self.log_temperature)


def to_pixels(images: torch.Tensor, gain: torch.Tensor | None) -> torch.Tensor:
    """Return (B, H, W, 3) uint8 images as (B, 3, H, W) float32 in [-1, 1], brightened by ``gain`` (B,) if given."""
    # Moving the axis gives the channels-last layout for free, which is also what convolutions are fastest in.
    pixels = images.movedim(-1, 1).float()
    if gain is None:
        return pixels.div_(255).mul_(2).sub_(1)
    return pixels.mul_((gain / 255)[:, None, None, None]).clamp_(max=1).mul_(2).sub_(1)


def soft_argmax(maps: torch.Tensor, log_temperature: torch.Tensor) -> torch.Tensor:
    """Return expected position and activation of each channel under softmax(exp(log_temperature) * map).

    Args:
        maps: (B, C, h, w) activations.
        log_temperature: (C,) natural logarithm of the factor on the activations.

    Returns:
        (B, 3C): x of all channels, y of all channels, activation of all channels.
    """
    batch, channels, height, width = maps.shape
    flat = maps.flatten(2)
    attention = torch.softmax(flat * log_temperature.exp()[:, None], dim=-1)
    grid = attention.view(batch, channels, height, width)
    x = grid.sum(2) @ torch.linspace(-1, 1, width, device=maps.device)
    y = grid.sum(3) @ torch.linspace(-1, 1, height, device=maps.device)
    return torch.cat([x, y, (attention * flat).sum(-1)], dim=-1)
