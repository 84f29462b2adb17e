"""From a configuration to a network with random weights."""

from __future__ import annotations

from robolift.value_model.model import ValueModel
from robolift.value_model.network import ModelShape, ValueNetwork
from robolift.value_model.presets import Config, ValueModelConfig


def build(config: Config, shape: ModelShape) -> ValueNetwork:
    """Return the network of a configuration, its weights drawn from PyTorch's global generator."""
    if isinstance(config, ValueModelConfig):
        return ValueModel(config, shape)
    from robolift.value_model.backbones.token_model import ValueTokenModel  # noqa: PLC0415  (transformers takes seconds)

    return ValueTokenModel(config, shape)
