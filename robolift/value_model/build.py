"""From a configuration to a network with random weights."""

from __future__ import annotations

from importlib.util import find_spec

from robolift.errors import UsageError
from robolift.value_model.model import ValueModel
from robolift.value_model.network import ModelShape, ValueNetwork
from robolift.value_model.presets import Config, TokenModelConfig, ValueModelConfig


def check_installed(config: Config) -> None:
    """Refuse towers where the library with their classes is missing.

    Raises:
        UsageError: With what to install.
    """
    if isinstance(config, TokenModelConfig) and find_spec("transformers") is None:
        raise UsageError(
            f"preset {config.preset} needs transformers, which is not installed\n"
            "  mend: pip install 'robolift[torch,full]'"
        )


def build(config: Config, shape: ModelShape, *, empty_towers: bool = False) -> ValueNetwork:
    """Return the network of a configuration, its weights drawn from PyTorch's global generator.

    Args:
        config: Architecture.
        shape: What the dataset decides.
        empty_towers: Whether towers, if it has any, get no weights yet: they will be read from a file.

    Raises:
        UsageError: If a library that the architecture needs is not installed.
    """
    if isinstance(config, ValueModelConfig):
        return ValueModel(config, shape)
    check_installed(config)
    from robolift.value_model.backbones.token_model import ValueTokenModel  # noqa: PLC0415  (transformers takes seconds)

    return ValueTokenModel(config, shape, empty_towers=empty_towers)
