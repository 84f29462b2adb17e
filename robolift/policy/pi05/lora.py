"""Products with a weight that may carry a low-rank update: x W + (x A) B, where A and B have few columns and rows.

The computation runs in the type of ``x``. Source: Hu et al., "LoRA", 2021 (arXiv 2106.09685); openpi's
``models/lora.py``, whose scale is alpha / rank = 1 in every published configuration.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from robolift.policy import xla  # noqa: F401
from robolift.policy.pi05.tree import Params
from robolift.policy.sharding import split_rows

RANK = "L"
"""Axis of the rank in an equation; no other axis may be called so."""


def einsum(equation: str, x: jax.Array, weights: Params) -> jax.Array:
    """Return ``einsum(equation, x, w)`` plus its low-rank update, if ``weights`` has one.

    Args:
        equation: ``<x>,<w>-><out>``; the last two axes of ``w`` are the ones that the update factors.
        x: First operand.
        weights: ``w``, and perhaps ``lora_a`` and ``lora_b``.
    """
    out: jax.Array = jnp.einsum(equation, x, weights["w"].astype(x.dtype))
    if "lora_a" not in weights:
        return out
    down, up = low_rank_equations(equation)
    narrow = jnp.einsum(down, x, weights["lora_a"].astype(x.dtype))
    update: jax.Array = jnp.einsum(up, narrow, weights["lora_b"].astype(x.dtype))
    return out + update


def low_rank_equations(equation: str) -> tuple[str, str]:
    """Return the equations of x A and of (x A) B, as openpi derives them.

    An outer axis of ``w`` that ``out`` lacks (the heads of an attention's output) is summed in each product by itself,
    so the update of all heads together has this rank.
    """
    operands, out = equation.split("->")
    x, w = operands.split(",")
    rows, columns = w[-2], w[-1]
    narrow = out.replace(columns, RANK)
    return f"{x},{w.replace(columns, RANK)}->{narrow}", f"{narrow},{w.replace(rows, RANK)}->{out}"


def feed_forward(x: jax.Array, weights: Params) -> jax.Array:
    """Return the gated feed-forward layer (GeGLU) of (..., W) ``x``: (gelu(x G0) * x G1) O."""
    gate = _product(x, weights, "gating_einsum", 0)
    return _product(jax.nn.gelu(gate) * _product(x, weights, "gating_einsum", 1), weights, "linear")


def _product(x: jax.Array, weights: Params, name: str, part: int | None = None) -> jax.Array:
    def matrix(suffix: str = "") -> jax.Array:
        stored: jax.Array = weights[name + suffix]
        return (stored if part is None else stored[part]).astype(x.dtype)

    out = split_rows(x @ matrix())
    return out + x @ matrix("_lora_a") @ matrix("_lora_b") if f"{name}_lora_a" in weights else out
