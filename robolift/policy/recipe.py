"""Every setting of a policy's training, with its one default. Needs no JAX."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from robolift.policy.named_recipes import RECIPES
from robolift.policy.pi05 import settings as pi05
from robolift.policy.pi05.config import PRESETS as PI05_PRESETS
from robolift.policy.pi05.settings import Pi05Settings
from robolift.policy.presets import PRESETS

UNLABELLED = frozenset({"plain", "filtered"})
"""Variants that need no labels."""
PROMPTED = frozenset({"advantage", "shuffled"})
"""Variants that are taught under the prompts of labels; the others know the bare task alone."""
WARMUP_SHARE = 100
"""A run warms up for one of so many steps unless it is told otherwise."""


class Recipe(Pi05Settings, BaseModel):
    """What a policy sees, what it is taught and for how long."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    recipe: str = ""
    """Named settings: `pi05_flatten_fold_awbc`, `pi05_tee_shirt_sort_awbc` or `pi05_hang_cloth_awbc` (kai0). They
    replace the defaults below, and what is set beside the name wins over them. The network stays that of `preset`."""
    preset: str = "tiny"
    """Network and its size: `tiny`, or pi0.5 as `pi05`, `pi05_lora` (low-rank updates) and `dummy` (in miniature). A
    preset of pi0.5 replaces the defaults of `vision`, `action_horizon`, `normalization`, `schedule`, `learning_rate`,
    `beta2`, `weight_decay` and `batch_size` by openpi's."""
    variant: Literal["plain", "filtered", "advantage", "shuffled", "weighted"] = "advantage"
    """What is taught. `advantage`: every frame under the prompt of its label. `plain`: every frame under the bare task.
    `filtered`: the same, successful episodes only. `shuffled`: as advantage with labels shuffled among ranked frames, a
    control. `weighted`: the bare task, each frame weighted by the labels' weight. All have the same network."""
    objective: Literal["flow", "regression"] = "flow"
    """Flow matching of the action chunk, or its mean square error."""
    vision: Literal["frozen", "none", "own"] = "frozen"
    """Images through the value model's encoder, kept as it is; no images; or through the network's own vision tower,
    which presets of pi0.5 have."""
    cameras: list[str] | None = None
    """Cameras to look through: null, or exactly those that the value model was trained on. For pi0.5 see
    `camera_keys`."""
    state_keys: list[str] = ["observation.state"]
    """State columns, joined in this order."""
    action_horizon: int = Field(8, ge=1)
    """Actions predicted at once."""
    execute: int | None = Field(None, ge=1)
    """Actions of a chunk to carry out before asking again; half of `action_horizon` when null."""
    normalization: Literal["mean_std", "quantile"] = "mean_std"
    """How states and actions are normalised: by input norm_stats, or without it as measured on the dataset."""
    steps: int = Field(1000, ge=1)
    """Optimizer steps."""
    batch_size: int = Field(256, ge=1)
    """Frames of a step, over all devices."""
    shuffle_block: int = Field(0, ge=0)
    """Neighbouring frames that an epoch takes together, its blocks in random order; 0 draws every frame by itself from
    all of them. Blocks keep the number of videos or shards small that are read at a time."""
    shuffle_window: int = Field(64, ge=1)
    """Blocks whose frames are mixed at a time; without effect where `shuffle_block` is 0."""
    loader_workers: int = Field(0, ge=0)
    """Processes that make the batches of coming steps, on each machine; 0: a thread makes the next one, which is enough
    for packed frames. With `frame_cache: none` each decodes `decode_workers` videos side by side. The result is the
    same."""
    learning_rate: float = Field(2e-3, gt=0)
    """Peak of the schedule."""
    schedule: Literal["one_cycle", "warmup_cosine"] = "one_cycle"
    """How the rate changes. `one_cycle`: up as a cosine for 30 % of the steps, down to almost 0. `warmup_cosine`: up in
    a line, down as a cosine to a share of its peak (openpi)."""
    warmup_steps: int | None = Field(None, ge=0)
    """`warmup_cosine`: steps of the rise; 1 % of `steps` when null."""
    decay_steps: int | None = Field(None, ge=1)
    """`warmup_cosine`: step at which the cosine has ended, the rise included; `steps` when null."""
    final_learning_rate_fraction: float | None = Field(None, ge=0, le=1)
    """`warmup_cosine`: rate at the end, as a share of its peak; 0.1 when null."""
    beta2: float = Field(0.999, gt=0, lt=1)
    """Decay of AdamW's squared gradients."""
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

    @model_validator(mode="before")
    @classmethod
    def _named(cls, given: Any) -> Any:
        name = given.get("recipe") if isinstance(given, dict) else ""
        if not isinstance(name, str) or not name:
            return cls._with_preset(given)
        if name not in RECIPES:
            raise ValueError(f"no recipe {name!r}; there are: {', '.join(RECIPES)}")
        # Who asks for no images does not want the recipe's cameras either.
        blind = given.get("vision") == "none"
        named = {key: value for key, value in RECIPES[name].items() if not (blind and key == "cameras")}
        return cls._with_preset({**named, **given})

    @staticmethod
    def _with_preset(given: Any) -> Any:
        preset = given.get("preset") if isinstance(given, dict) else None
        return {**pi05.defaults(preset), **given} if isinstance(preset, str) and preset in PI05_PRESETS else given

    @field_validator("preset")
    @classmethod
    def _known(cls, value: str) -> str:
        sizes = [*PRESETS, *PI05_PRESETS]
        if value in RECIPES:
            raise ValueError(f"{value} is a recipe, not a size: set recipe to it; sizes are: {', '.join(sizes)}")
        if value not in sizes:
            raise ValueError(f"no preset {value!r}; there are: {', '.join(sizes)}")
        return value

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.executed > self.action_horizon:
            raise ValueError(f"execute is {self.execute}, expected at most action_horizon ({self.action_horizon})")
        if self.vision == "none" and not self.state_keys:
            raise ValueError("vision is none and state_keys is empty: the policy would see nothing")
        if self.vision == "none" and self.cameras:
            raise ValueError("cameras are given, but vision is none")
        if self.is_pi05:
            pi05.check(self.__dict__)
        elif changed := sorted(name for name in Pi05Settings.model_fields if getattr(self, name) != _default(name)):
            raise ValueError(f"{changed[0]} is for presets of pi0.5, but preset is {self.preset}")
        elif self.vision == "own":
            raise ValueError(f"vision is own, but preset {self.preset} has no vision tower")
        if self.batch_size % self.num_devices:
            raise ValueError(f"batch_size is {self.batch_size}, expected a multiple of num_devices {self.num_devices}")
        if self.num_devices % self.fsdp_devices:
            raise ValueError(
                f"fsdp_devices is {self.fsdp_devices}, expected a divisor of num_devices {self.num_devices}"
            )
        return self

    @model_validator(mode="after")
    def _schedules(self) -> Self:
        if self.schedule == "one_cycle":
            names = ("warmup_steps", "decay_steps", "final_learning_rate_fraction")
            for name in names:
                if getattr(self, name) is not None:
                    raise ValueError(f"{name} is for schedule warmup_cosine, but schedule is one_cycle")
        elif self.warmup >= self.decayed:
            raise ValueError(f"warm-up takes {self.warmup} steps, expected fewer than decay_steps ({self.decayed})")
        return self

    @property
    def is_pi05(self) -> bool:
        """Whether the network is pi0.5."""
        return self.preset in PI05_PRESETS

    @property
    def warmup(self) -> int:
        """Steps of the rise of ``warmup_cosine``."""
        return self.steps // WARMUP_SHARE if self.warmup_steps is None else self.warmup_steps

    @property
    def decayed(self) -> int:
        """Step at which the cosine of ``warmup_cosine`` has ended."""
        return self.steps if self.decay_steps is None else self.decay_steps

    @property
    def final_learning_rate(self) -> float:
        """Rate at the end of ``warmup_cosine``."""
        fraction = self.final_learning_rate_fraction
        return self.learning_rate * (0.1 if fraction is None else fraction)

    @property
    def executed(self) -> int:
        """Actions of a chunk to carry out before asking again."""
        return max(1, self.action_horizon // 2) if self.execute is None else self.execute


def _default(name: str) -> Any:
    return Pi05Settings.model_fields[name].default
