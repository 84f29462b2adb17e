"""A pi0.5 of nine thousand weights, each with a value of its own: what is moved or lost shows."""

from __future__ import annotations

import math

import numpy as np

from robolift.policy.pi05.config import GemmaConfig, Pi05Config, SiglipConfig
from robolift.policy.pi05.tree import Params, names_and_shapes, unflatten

# openpi's converter wants heads times their width to be the width of a token, but not in the action expert.
TINY = Pi05Config(
    preset="tiny",
    vision=SiglipConfig(width=8, depth=2, mlp_dim=12, num_heads=2, patch=2, image_side=4),
    vlm=GemmaConfig(width=16, depth=2, mlp_dim=24, num_heads=4, num_kv_heads=1, head_dim=4),
    expert=GemmaConfig(width=8, depth=2, mlp_dim=12, num_heads=4, num_kv_heads=1, head_dim=4),
    vocabulary=32,
    action_dim=3,
    action_horizon=2,
    max_token_len=8,
    dtype="float32",
)


def counted(config: Pi05Config = TINY) -> Params:
    """Return the tree whose arrays, in the order of their names, count 0, 1, 2, ... on from one to the next."""
    flat, start = {}, 0
    for path, shape in names_and_shapes(config).items():
        count = math.prod(shape)
        flat[path] = np.arange(start, start + count, dtype=np.float32).reshape(shape)
        start += count
    return unflatten(flat)
