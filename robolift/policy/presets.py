"""Sizes of the policy: each preset is a function that returns a frozen configuration. Needs no JAX."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class PolicyConfig:
    """Architecture of a policy, apart from what the dataset decides (inputs, actions, prompts).

    Attributes:
        preset: Name of the preset.
        hidden_widths: Widths of the layers between inputs and actions.
        prompt_width: Width of the learned embedding of a prompt.
        time_width: Width of the sine and cosine embedding of the flow time; even. Not used by regression.
        sampling_steps: Euler steps from noise to actions. Not used by regression.
    """

    preset: str
    hidden_widths: tuple[int, ...]
    prompt_width: int
    time_width: int
    sampling_steps: int


def tiny() -> PolicyConfig:
    """Trains in seconds on one CPU core: 0.2 million weights."""
    return PolicyConfig(preset="tiny", hidden_widths=(256, 256, 256), prompt_width=16, time_width=64, sampling_steps=10)


PRESETS: dict[str, Callable[[], PolicyConfig]] = {"tiny": tiny}
