"""How the stages of a run look at a dataset, worked out from their configurations before anything is decoded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from robolift.errors import UsageError
from robolift.policy.pi05.config import PRESETS as PI05_PRESETS
from robolift.policy.pi05.settings import cameras_by_key
from robolift.policy.recipe import Recipe as PolicyRecipe
from robolift.stages.pack_frames import Config
from robolift.stages.stage import parse_config
from robolift.value_model.presets import PRESETS, TokenModelConfig
from robolift.value_model.recipe import Recipe

Stages = Mapping[str, Mapping[str, Any] | None]


def view_of(consumer: str, stages: Stages) -> Config:
    """Return how a stage will look at a dataset, as cameras, size and padding of pack_frames.

    Without cameras it looks at no picture. A policy that looks as the value model does is given the value model's view,
    so that one cache serves both.

    Args:
        consumer: ``train_value``, whose checkpoint predicts from the same pictures, or ``train_policy``.
        stages: Configuration by stage name.

    Raises:
        UsageError: If a configuration is wrong, or the consumer looks at no pictures of a cache.
    """
    if consumer == "train_value":
        return _value_view(stages)
    if consumer != "train_policy":
        raise UsageError(f"no stage {consumer!r} looks at a frame cache; there are: train_value, train_policy")
    value, policy = _value_view(stages), _policy_view(stages)
    alike = (value.size, value.padded) == (policy.size, policy.padded)
    covered = value.cameras is None or set(policy.cameras or ()) <= set(value.cameras)
    return value if alike and covered and policy.cameras else policy


def _value_view(stages: Stages) -> Config:
    recipe = cast("Recipe", parse_config("train_value", stages.get("train_value") or {}))
    config = PRESETS[recipe.preset]() if recipe.preset in PRESETS else None
    padded = isinstance(config, TokenModelConfig) and config.padded
    return Config(cameras=recipe.cameras, size=recipe.image_size, padded=padded)


def _policy_view(stages: Stages) -> Config:
    """Only pi0.5 looks at pictures: other networks see what the value model's encoder made of them."""
    recipe = cast("PolicyRecipe", parse_config("train_policy", stages.get("train_policy") or {}))
    if not recipe.is_pi05:
        return Config(cameras=[])
    side = PI05_PRESETS[recipe.preset]().vision.image_side
    return Config(cameras=list(cameras_by_key(recipe.__dict__).values()), size=(side, side), padded=True)
