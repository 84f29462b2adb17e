"""Every setting of a policy's training, with its one default. Needs no JAX."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from robolift.policy.presets import PRESETS

UNLABELLED = frozenset({"plain", "filtered"})
"""Variants that need no labels."""


class Recipe(BaseModel):
    """What a policy sees, what it is taught and for how long."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    preset: str = "tiny"
    """Size of the network."""
    variant: Literal["plain", "filtered", "advantage", "shuffled", "weighted"] = "advantage"
    """What is taught. `advantage`: every frame under the prompt of its label. `plain`: every frame under the bare task.
    `filtered`: the same, successful episodes only. `shuffled`: as advantage with labels shuffled among ranked frames, a
    control. `weighted`: the bare task, each frame weighted by the labels' weight. All have the same network."""
    objective: Literal["flow", "regression"] = "flow"
    """Flow matching of the action chunk, or its mean square error."""
    vision: Literal["frozen", "none"] = "frozen"
    """Images through the value model's encoder, kept as it is; or no images."""
    cameras: list[str] | None = None
    """Cameras to look through: null, or exactly those that the value model was trained on, in its order."""
    state_keys: list[str] = ["observation.state"]
    """State columns, joined in this order."""
    action_horizon: int = Field(8, ge=1)
    """Actions predicted at once."""
    execute: int | None = Field(None, ge=1)
    """Actions of a chunk to carry out before asking again; half of `action_horizon` when null."""
    normalization: Literal["mean_std", "quantile"] = "mean_std"
    """How states and actions are normalised."""
    steps: int = Field(1000, ge=1)
    """Optimizer steps."""
    batch_size: int = Field(256, ge=1)
    """Frames of a step, over all devices."""
    learning_rate: float = Field(2e-3, gt=0)
    """Peak of the one-cycle schedule."""
    weight_decay: float = Field(0.01, ge=0)
    """AdamW's."""
    gradient_clip: float = Field(1.0, gt=0)
    """Largest global norm of the gradient."""
    ema_decay: float = Field(0.99, ge=0, lt=1)
    """Decay of the moving average of weights, which acts."""
    label_dropout: float = Field(0.3, ge=0, lt=1)
    """Share of rows trained under the bare task, without which there is no guidance."""
    input_noise: float = Field(0.0, ge=0)
    """Standard deviation of noise on states and features while training, in normalised units."""
    val_fraction: float = Field(0.1, ge=0, lt=1)
    """Share of the episodes held out, at least one, each outcome in proportion; 0 for none. Without effect where the
    encoder was trained on these episodes: then those are held out that the value model held out."""
    seed: int = Field(0, ge=0)
    """Of weights, order, noise, held-out episodes and shuffled labels."""
    log_every: int = Field(100, ge=1)
    """Steps between two points of the curves."""
    save_every: int = Field(500, ge=1)
    """Steps between two states that a killed run goes on from."""
    num_devices: int = Field(1, ge=1)
    """Devices to spread a batch over; another number gives other last bits."""
    fsdp_devices: int = Field(1, ge=1)
    """How many of them share one copy of large weights."""

    @field_validator("preset")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in PRESETS:
            raise ValueError(f"no preset {value!r}; there are: {', '.join(PRESETS)}")
        return value

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.executed > self.action_horizon:
            raise ValueError(f"execute is {self.execute}, expected at most action_horizon ({self.action_horizon})")
        if self.vision == "none" and not self.state_keys:
            raise ValueError("vision is none and state_keys is empty: the policy would see nothing")
        if self.vision == "none" and self.cameras:
            raise ValueError("cameras are given, but vision is none")
        if self.batch_size % self.num_devices:
            raise ValueError(f"batch_size is {self.batch_size}, expected a multiple of num_devices {self.num_devices}")
        if self.num_devices % self.fsdp_devices:
            raise ValueError(
                f"fsdp_devices is {self.fsdp_devices}, expected a divisor of num_devices {self.num_devices}"
            )
        return self

    @property
    def executed(self) -> int:
        """Actions of a chunk to carry out before asking again."""
        return max(1, self.action_horizon // 2) if self.execute is None else self.execute
