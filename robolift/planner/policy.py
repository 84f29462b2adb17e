"""A pi0.5 policy as the planner sees it."""

from __future__ import annotations

from dataclasses import replace

from robolift.planner.network import FLOAT_BYTES, Network, Product, Weight
from robolift.planner.stack import Keeps, Lane, Stack
from robolift.policy.pi05.config import GemmaConfig, Pi05Config
from robolift.policy.pi05.freeze import is_updated_by_lora
from robolift.policy.pi05.tree import names_and_shapes

BFLOAT16_BYTES = 2
RGB = 3
GEMMA_KEEPS = Keeps(norms=6, inputs=2, hidden=8)
"""Of each norm its input, that of the square and what is normed; six of GELU's polynomial and the gate's two sides."""
VISION_KEEPS = Keeps(norms=6, inputs=2, hidden=6)
CAST = ("/w", "/gating_einsum", "/linear")
"""What the names of matrices end in that are cast to the computation's type when used."""


def network(config: Pi05Config) -> Network:
    """Return what a policy of ``config`` is made of.

    A prefix of pictures and text and a suffix of noisy actions go through one stack, each by weights of its own. The
    matrices that low-rank updates stand for are frozen.
    """
    vision, vlm, expert = config.vision, config.vlm, config.expert
    pictures = len(config.cameras)
    text = _lane(vlm, pictures * vision.num_tokens + config.max_token_len, conditioned=False)
    actions = _lane(expert, config.action_horizon, conditioned=True)
    both = Stack(
        name="both experts",
        depth=vlm.depth,
        sequences=1,
        lanes=(text, actions),
        keeps=GEMMA_KEEPS,
        num_heads=vlm.num_heads,
        num_kv_heads=vlm.num_kv_heads,
        head_dim=vlm.head_dim,
    )
    patches = pictures * vision.num_tokens
    return Network(
        preset=config.preset,
        trainer="jax",
        weights={name: _weight(name, shape, config) for name, shape in names_and_shapes(config).items()},
        compute_bytes=_compute_bytes(config),
        stream_bytes=_compute_bytes(config),
        stacks=(
            Stack(
                name="vision tower",
                depth=vision.depth,
                sequences=pictures,
                keeps=VISION_KEEPS,
                lanes=(Lane(tokens=vision.num_tokens, width=vision.width, mlp_dim=vision.mlp_dim, gated=False),),
                num_heads=vision.num_heads,
                num_kv_heads=vision.num_heads,
                head_dim=vision.width // vision.num_heads,
            ),
            both,
        ),
        products=(
            Product(patches, RGB * vision.patch**2, vision.width),
            Product(patches, vision.width, vlm.width),
            Product(config.action_horizon, config.action_dim, expert.width),
            Product(config.action_horizon, expert.width, config.action_dim),
            Product(2, expert.width, expert.width),
            Product(1, expert.width, 3 * expert.width),
        ),
        input_bytes=_input_bytes(config),
        outer_bytes=_outer_bytes(config),
        cached=replace(both, name="prefix", lanes=(text,)),
    )


def _lane(gemma: GemmaConfig, tokens: int, *, conditioned: bool) -> Lane:
    return Lane(
        tokens=tokens,
        width=gemma.width,
        mlp_dim=gemma.mlp_dim,
        conditioned=conditioned,
        lora_rank=gemma.lora_rank,
    )


def _weight(name: str, shape: tuple[int, ...], config: Pi05Config) -> Weight:
    trained = not is_updated_by_lora(config, name)
    # Frozen matrices are kept in the type that they are used in.
    cast = not trained and name.endswith(CAST)
    return Weight(shape, trained, _compute_bytes(config) if cast else FLOAT_BYTES)


def _compute_bytes(config: Pi05Config) -> int:
    return BFLOAT16_BYTES if config.dtype == "bfloat16" else FLOAT_BYTES


def _outer_bytes(config: Pi05Config) -> int:
    """Return what patches keep: their pixels, and the last norm's three float32 tensors and its output."""
    pixels = FLOAT_BYTES * RGB * config.vision.patch**2
    norm = (3 * FLOAT_BYTES + _compute_bytes(config)) * config.vision.width
    return len(config.cameras) * config.vision.num_tokens * (pixels + norm)


def _input_bytes(config: Pi05Config) -> int:
    pictures = len(config.cameras) * (config.vision.image_side**2 * RGB * FLOAT_BYTES + 1)
    prompt = config.max_token_len * (FLOAT_BYTES + 1)
    return pictures + prompt + config.action_horizon * config.action_dim * FLOAT_BYTES
