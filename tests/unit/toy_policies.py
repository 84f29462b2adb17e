"""What the policy tests stand on: chunks whose action only the label decides, and a policy of a few weights."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import numpy as np

from robolift.labeling.prompts import PromptTable, advantage_prompts
from robolift.policy import model
from robolift.policy.checkpoint import PolicySpec, save_policy
from robolift.policy.data import ChunkData
from robolift.policy.encoder import EncoderSpec
from robolift.policy.model import PolicyShape
from robolift.policy.normalize import Normalizer
from robolift.policy.presets import PolicyConfig
from robolift.policy.recipe import Recipe

SMALL = PolicyConfig(preset="small", hidden_widths=(32, 32), prompt_width=8, time_width=16, sampling_steps=6)
BARE, NEGATIVE, POSITIVE = 0, 1, 2
PROMPTS = advantage_prompts(("fold",))
GOOD, BAD = 1.5, -0.5
HELD_OUT = 16


def two_modes(num: int = 240, *, labelled: bool = True) -> ChunkData:
    """Return single-frame episodes: the action is GOOD in even rows and BAD in odd ones, whatever is observed."""
    good = np.arange(num) % 2 == 0
    prompt = np.where(good, POSITIVE, NEGATIVE) if labelled else np.full(num, BARE)
    return ChunkData(
        observation=np.random.default_rng(0).standard_normal((num, 3)).astype(np.float32),
        actions=np.where(good, GOOD, BAD)[:, None].astype(np.float32),
        left=np.ones(num, np.int64),
        prompt=prompt.astype(np.int32),
        weight=np.ones(num, np.float32),
        bare=np.zeros(3, np.int32),
        rows=np.arange(num - HELD_OUT),
        held_out_rows=np.arange(num - HELD_OUT, num),
        action_horizon=1,
    )


def shape_of(data: ChunkData, objective: str = "flow") -> PolicyShape:
    return PolicyShape(
        observation_dim=data.observation.shape[1],
        num_prompts=len(data.bare),
        action_horizon=data.action_horizon,
        action_dim=data.actions.shape[1],
        objective=objective,
    )


def recipe(**changes: Any) -> Recipe:
    return Recipe(**{"vision": "none", "batch_size": 32, "label_dropout": 0.0, **changes})


def save_small(folder: Any, *, cameras: int = 1, seed: int = 0, **changes: Any) -> PolicySpec:
    """Write an untrained policy of two states and square 16 pixel images; its action offsets are 10 and 20."""
    encoder = EncoderSpec(
        cameras=tuple(f"observation.images.{k}" for k in range(cameras)),
        image_size=(16, 16),
        channels=(4,),
        kernels=(3,),
        strides=(2,),
    )
    features = encoder.num_features
    spec = PolicySpec(
        architecture=SMALL,
        objective="flow",
        variant="advantage",
        prompts=PromptTable(PROMPTS.prompts),
        bare_prompts=(BARE, BARE, BARE),
        trained_prompts=(BARE, NEGATIVE, POSITIVE),
        held_out_episodes=(1, 4),
        state_keys=("observation.state", "observation.force"),
        state_dims=(3, 1),
        encoder=encoder if cameras else None,
        observation=Normalizer(np.zeros(4 + features, np.float32), np.ones(4 + features, np.float32)),
        action=Normalizer(np.array([10, 20], np.float32), np.array([1, 2], np.float32)),
        action_horizon=3,
        execute=2,
        fps=20.0,
        steps=5,
    )
    spec = replace(spec, **changes)
    rng = np.random.default_rng(seed)
    shapes = {"conv0.weight": (4, 3, 3, 3), "conv0.bias": (4,), "log_temperature": (4,)}
    weights = {
        f"encoder.{k}.{name}": rng.standard_normal(shape).astype(np.float32)
        for k in range(cameras)
        for name, shape in shapes.items()
    }
    save_policy(folder, spec, model.init(jax.random.key(seed), spec.architecture, spec.shape), weights)
    return spec


def observe(spec: PolicySpec, rows: int) -> dict[str, np.ndarray]:
    """Return ``rows`` random observations as the policy wants them."""
    rng = np.random.default_rng(1)
    images = {key: rng.integers(0, 256, (rows, 16, 16, 3), dtype=np.uint8) for key in spec.cameras}
    states = {
        key: rng.standard_normal((rows, dim)).astype(np.float32)
        for key, dim in zip(spec.state_keys, spec.state_dims, strict=True)
    }
    return {**images, **states}
