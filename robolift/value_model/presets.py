"""Sizes of the value model: each preset is a function that returns a frozen configuration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """A stack of convolutions, one entry a layer.

    Attributes:
        channels: Output channels; the last gives 3 features a channel.
        kernels: Odd kernel sizes; the padding is half of it.
        strides: Strides.
    """

    channels: tuple[int, ...]
    kernels: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def num_features(self) -> int:
        """Features of one camera: x, y and attended activation of each channel."""
        return 3 * self.channels[-1]


@dataclass(frozen=True, kw_only=True)
class ValueModelConfig:
    """Architecture of a value model, apart from what the dataset decides (cameras, state, tasks, actions).

    Attributes:
        preset: Name of the preset.
        encoder: Image encoder, one set of weights per camera.
        state_width: Width of the state's own layer.
        text_buckets: Rows of the hashed token embedding.
        text_width: Width of a token embedding.
        trunk_widths: Hidden layers that read images, state and text.
        action_widths: Hidden layers of the auxiliary action head.
        atoms: Atoms of the value distribution, evenly spaced from ``low`` to ``high``.
        low: Lowest value of the distribution.
        high: Highest value of the distribution.
        head: What the value is read from, a key of robolift.value_model.heads.HEADS; the recipe chooses it.
    """

    preset: str
    encoder: EncoderConfig
    state_width: int
    text_buckets: int
    text_width: int
    trunk_widths: tuple[int, ...]
    action_widths: tuple[int, ...]
    atoms: int
    low: float
    high: float
    head: str = "distribution"


def tiny() -> ValueModelConfig:
    """Trains on two CPU cores in minutes: 0.4 million weights with three cameras."""
    return ValueModelConfig(
        preset="tiny",
        encoder=EncoderConfig(channels=(16, 32, 32, 32), kernels=(5, 3, 3, 3), strides=(2, 2, 1, 1)),
        state_width=64,
        text_buckets=1024,
        text_width=16,
        trunk_widths=(256, 256),
        action_widths=(256,),
        atoms=201,
        low=-1.0,
        high=0.0,
    )


PRESETS: dict[str, Callable[[], ValueModelConfig]] = {"tiny": tiny}
