"""What the tests of training pi0.5 stand on: a small network, and chunks whose action only the label decides."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tiny_tokenizer import VOCABULARY, tiny_tokenizer
from toy_policies import PROMPTS, two_modes

from robolift.data.tokenizer import Tokenizer
from robolift.labeling.prompt_formatter import PromptFormatter
from robolift.policy import learning
from robolift.policy.normalize import Normalizer
from robolift.policy.pi05.batches import PromptedRows
from robolift.policy.pi05.config import GemmaConfig, Pi05Config, SiglipConfig, dummy
from robolift.policy.pi05.learner import Pi05Learner, decays
from robolift.policy.pi05.policy_files import Pi05Spec
from robolift.policy.recipe import Recipe

SIDE = 14
REAL_DIMS = 1
GEMMA = GemmaConfig(width=16, depth=2, mlp_dim=32, num_heads=2, num_kv_heads=1, head_dim=8)


def config(**changes: Any) -> Pi05Config:
    """Return the preset ``dummy`` at a quarter of its width, with one camera and single actions."""
    small = replace(
        dummy(),
        vision=SiglipConfig(width=16, depth=1, mlp_dim=32, num_heads=2, patch=14, image_side=SIDE),
        vlm=GEMMA,
        expert=GEMMA,
        cameras=("base_0_rgb",),
        action_dim=4,
        action_horizon=1,
        remat=False,
    )
    return replace(small, **changes)


def recipe(**changes: Any) -> Recipe:
    plain = {"preset": "dummy", "tokenizer": "memory://unused", "cameras": ["topview"], "action_horizon": 1}
    return Recipe(**{**plain, "batch_size": 8, "label_dropout": 0.0, "learning_rate": 1e-3, **changes})


def tokenizer(folder: Path) -> Tokenizer:
    (folder / "tiny.model").write_bytes(tiny_tokenizer())
    return Tokenizer.load(str(folder / "tiny.model"), vocabulary=VOCABULARY)


def rows(network: Pi05Config, settings: Recipe, words: Tokenizer) -> PromptedRows:
    """Return the chunks of :func:`toy_policies.two_modes` with random pictures."""
    chunks = two_modes()
    held_out = chunks.held_out_rows if settings.val_fraction else chunks.held_out_rows[:0]
    chunks = replace(chunks, observation=np.clip(chunks.observation / 3, -1, 1), held_out_rows=held_out)
    shape = (len(chunks.actions), len(network.cameras), SIDE, SIDE, 3)
    return PromptedRows(
        chunks=chunks,
        frames=np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8),
        prompts=PROMPTS,
        formatter=PromptFormatter.fit("kai0", PROMPTS, words, length=network.max_token_len, state_dim=3),
        action_width=network.action_dim,
        batch_size=settings.batch_size,
        drops_labels=settings.label_dropout > 0,
    )


def learner(network: Pi05Config, settings: Recipe) -> Pi05Learner:
    optimizer = learning.make_optimizer(settings, decays)
    return Pi05Learner(config=network, recipe=settings, real_dims=REAL_DIMS, optimizer=optimizer)


def with_updates(network: Pi05Config, rank: int = 2) -> Pi05Config:
    """Return the same network with low-rank updates of both experts."""
    return replace(network, vlm=replace(GEMMA, lora_rank=rank), expert=replace(GEMMA, lora_rank=rank))


def spec_of(data: PromptedRows, network: Pi05Config, **changes: Any) -> Pi05Spec:
    """Return the specification of a policy that was trained on these rows under every prompt."""
    spec = Pi05Spec(
        variant="advantage",
        prompts=data.prompts,
        bare_prompts=(0, 0, 0),
        trained_prompts=(0, 1, 2),
        held_out_episodes=(),
        state_keys=("observation.state",),
        state_dims=(3,),
        action=Normalizer(np.zeros(1, np.float32), np.ones(1, np.float32)),
        action_horizon=1,
        execute=1,
        fps=10.0,
        steps=1,
        config=network,
        camera_keys={"base_0_rgb": "topview"},
        state=Normalizer(np.zeros(3, np.float32), np.ones(3, np.float32)),
        formatter=data.formatter.to_dict(),
    )
    return replace(spec, **changes)
