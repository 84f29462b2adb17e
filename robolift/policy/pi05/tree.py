"""The weights of pi0.5 by name: shapes and fresh distributions, by arithmetic alone. Needs no JAX.

Names, nesting and shapes are openpi's, so that its checkpoints load without renaming: ``/`` joins the levels, the
layers of a stack lie along the first axis, and ``_1`` marks the action expert.

Source: openpi, ``models/{pi0,gemma,siglip,lora}.py``; fresh weights follow its initializers by variance.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from robolift.policy.pi05.config import GemmaConfig, Pi05Config, SiglipConfig

Params = dict[str, Any]
"""Nested dictionaries of arrays (or of whatever a leaf is replaced by)."""
EXPERTS = ("", "_1")
"""What the names of the vision-language expert and of the action expert end in."""
LORA_SPREAD = 0.01


class Weight(NamedTuple):
    """One array of the tree.

    Attributes:
        shape: Its shape.
        spread: Standard deviation of fresh values.
        mean: Mean of fresh values.
    """

    shape: tuple[int, ...]
    spread: float = 0.0
    mean: float = 0.0


Weights = dict[str, Weight]


def flatten(tree: Params) -> dict[str, Any]:
    """Return the leaves of nested dictionaries by path, in the order of their names."""
    flat: dict[str, Any] = {}
    for name, node in tree.items():
        below = {f"{name}/{path}": leaf for path, leaf in flatten(node).items()} if isinstance(node, dict) else None
        flat.update({name: node} if below is None else below)
    return dict(sorted(flat.items()))


def unflatten(flat: dict[str, Any]) -> Params:
    """Return the nested dictionaries whose :func:`flatten` is ``flat``."""
    tree: Params = {}
    for path, leaf in flat.items():
        *levels, name = path.split("/")
        node = tree
        for level in levels:
            node = node.setdefault(level, {})
        node[name] = leaf
    return tree


def weights(config: Pi05Config) -> Weights:
    """Return every array of the model by path, in the order of their names."""
    width = config.expert.width
    return dict(
        sorted(
            {
                **_under("PaliGemma/img", _vision(config.vision, config.vlm.width)),
                **_under("PaliGemma/llm", _language(config)),
                **_dense("action_in_proj", config.action_dim, width),
                **_dense("time_mlp_in", width, width),
                **_dense("time_mlp_out", width, width),
                **_dense("action_out_proj", width, config.action_dim),
            }.items()
        )
    )


def names_and_shapes(config: Pi05Config) -> dict[str, tuple[int, ...]]:
    """Return the shape of every array of the model by path, in the order of their names."""
    return {path: weight.shape for path, weight in weights(config).items()}


def count(config: Pi05Config) -> int:
    """Return the number of weights of the model."""
    return sum(math.prod(shape) for shape in names_and_shapes(config).values())


def _under(prefix: str, part: Weights) -> Weights:
    return {f"{prefix}/{path}": weight for path, weight in part.items()}


def _stacked(depth: int, layer: Weights) -> Weights:
    return {path: weight._replace(shape=(depth, *weight.shape)) for path, weight in layer.items()}


def _dense(name: str, width_in: int, width_out: int, *, zero: bool = False) -> Weights:
    spread = 0.0 if zero else 1 / math.sqrt(width_in)
    return {f"{name}/kernel": Weight((width_in, width_out), spread), f"{name}/bias": Weight((width_out,))}


def _vision(config: SiglipConfig, width_out: int) -> Weights:
    width, heads, patch = config.width, config.num_heads, config.patch
    head_dim, layer = width // heads, Weights()
    for norm in ("LayerNorm_0", "LayerNorm_1"):
        layer |= {f"{norm}/scale": Weight((width,), mean=1.0), f"{norm}/bias": Weight((width,))}
    attention = "MultiHeadDotProductAttention_0"
    for name in ("query", "key", "value"):
        layer[f"{attention}/{name}/kernel"] = Weight((width, heads, head_dim), 1 / math.sqrt(width))
        layer[f"{attention}/{name}/bias"] = Weight((heads, head_dim))
    layer[f"{attention}/out/kernel"] = Weight((heads, head_dim, width), 1 / math.sqrt(width))
    layer[f"{attention}/out/bias"] = Weight((width,))
    spread = math.sqrt(2 / (width + config.mlp_dim))
    for name, shape in (("Dense_0", (width, config.mlp_dim)), ("Dense_1", (config.mlp_dim, width))):
        layer[f"MlpBlock_0/{name}/kernel"] = Weight(shape, spread)
        layer[f"MlpBlock_0/{name}/bias"] = Weight(shape[1:], 1e-6)
    return {
        "embedding/kernel": Weight((patch, patch, 3, width), 1 / math.sqrt(patch * patch * 3)),
        "embedding/bias": Weight((width,)),
        "pos_embedding": Weight((1, config.num_tokens, width), 1 / math.sqrt(width)),
        **_under("Transformer/encoderblock", _stacked(config.depth, layer)),
        "Transformer/encoder_norm/scale": Weight((width,), mean=1.0),
        "Transformer/encoder_norm/bias": Weight((width,)),
        **_dense("head", width, width_out, zero=True),
    }


def _language(config: Pi05Config) -> Weights:
    layer = {**_expert_layer(config.vlm, EXPERTS[0], adaptive=False), **_expert_layer(config.expert, EXPERTS[1])}
    return {
        "embedder/input_embedding": Weight((config.vocabulary, config.vlm.width), 0.01),
        **_under("layers", _stacked(config.vlm.depth, layer)),
        **_norm(f"final_norm{EXPERTS[0]}", config.vlm.width, adaptive=False),
        **_norm(f"final_norm{EXPERTS[1]}", config.expert.width, adaptive=True),
    }


def _norm(name: str, width: int, *, adaptive: bool) -> Weights:
    if adaptive:
        return _dense(f"{name}/Dense_0", width, 3 * width, zero=True)
    return {f"{name}/scale": Weight((width,))}


def _expert_layer(config: GemmaConfig, expert: str, *, adaptive: bool = True) -> Weights:
    width, hidden, heads, head_dim = config.width, config.mlp_dim, config.num_heads, config.head_dim
    narrow, rank = 1 / math.sqrt(width), config.lora_rank
    mlp = f"mlp{expert}"
    matrices = {
        f"attn/q_einsum{expert}/w": Weight((heads, width, head_dim), narrow),
        f"attn/kv_einsum{expert}/w": Weight((2, config.num_kv_heads, width, head_dim), narrow),
        f"attn/attn_vec_einsum{expert}/w": Weight((heads, head_dim, width), 1 / math.sqrt(heads * head_dim)),
        f"{mlp}/gating_einsum": Weight((2, width, hidden), narrow),
        f"{mlp}/linear": Weight((hidden, width), 1 / math.sqrt(hidden)),
    }
    return {
        **_norm(f"pre_attention_norm{expert}", width, adaptive=adaptive),
        **_norm(f"pre_ffw_norm{expert}", width, adaptive=adaptive),
        **matrices,
        **({} if rank == 0 else _low_rank(matrices, rank)),
    }


def _low_rank(matrices: Weights, rank: int) -> Weights:
    """Return the updates of ``matrices``: the second factor starts at zero, so that a fresh update changes nothing."""
    updates = Weights()
    for path, (shape, _, _) in matrices.items():
        *outer, rows, columns = shape
        stem = path.removesuffix("w") if path.endswith("/w") else f"{path}_"
        updates[f"{stem}lora_a"] = Weight((*outer, rows, rank), LORA_SPREAD)
        updates[f"{stem}lora_b"] = Weight((*outer, rank, columns))
    return updates
