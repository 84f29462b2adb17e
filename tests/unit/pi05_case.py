"""One case for pi0.5 that NumPy makes from a seed: weights, inputs, actions, noise and time. Needs no JAX.

The parity measurement runs openpi on it, the tests run our network on it; recorded outputs make them comparable.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from robolift.policy.pi05 import tree
from robolift.policy.pi05.config import Pi05Config, dummy

FIXTURES = Path(__file__).parents[1] / "fixtures"
GOLDEN = FIXTURES / "pi05_golden.json"
NAMES = FIXTURES / "pi05_names.json"
SEED, BATCH = 7, 3


class Case(NamedTuple):
    images: np.ndarray
    image_mask: np.ndarray
    tokens: np.ndarray
    token_mask: np.ndarray
    actions: np.ndarray
    noise: np.ndarray
    beta: np.ndarray
    """A draw of the Beta distribution, before openpi moves it into [0.001, 1]."""


def with_lora(config: Pi05Config | None = None, vlm: int = 3, expert: int = 5) -> Pi05Config:
    config = config or dummy()
    return replace(config, vlm=replace(config.vlm, lora_rank=vlm), expert=replace(config.expert, lora_rank=expert))


def weights(config: Pi05Config, seed: int = SEED) -> dict[str, np.ndarray]:
    """No array is zero, so that every one matters to the outputs."""
    rng = np.random.default_rng(seed)
    return {
        path: (weight.mean + 0.15 * (2 * rng.random(weight.shape) - 1)).astype(np.float32)
        for path, weight in tree.weights(config).items()
    }


def case(config: Pi05Config, seed: int = SEED) -> Case:
    """The first row lacks a wrist camera, the second pads its prompt, the third has both."""
    rng = np.random.default_rng(seed + 1)
    side, length, chunk = config.vision.image_side, config.max_token_len, (config.action_horizon, config.action_dim)
    images = 2 * rng.random((BATCH, len(config.cameras), side, side, 3)) - 1
    return Case(
        images=images.astype(np.float32),
        image_mask=np.array([[True, True, False], [True, True, True], [False, True, True]]),
        tokens=(rng.random((BATCH, length)) * config.vocabulary).astype(np.int32),
        token_mask=np.arange(length) < np.array([[length], [length // 3], [length // 2]]),
        actions=(2 * rng.random((BATCH, *chunk)) - 1).astype(np.float32),
        noise=(4 * rng.random((BATCH, *chunk)) - 2).astype(np.float32),
        beta=rng.random(BATCH).astype(np.float32),
    )


def golden(name: str) -> dict[str, Any]:
    return json.loads(GOLDEN.read_text())[name]
