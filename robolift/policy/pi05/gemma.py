"""Two Gemmas that share attention: each layer mixes the tokens of both experts, everything else is an expert's own.

Weights are cast to the type of the tokens; norms, rotations, attention logits and softmax are float32.

Sources: Gemma Team, "Gemma", 2024 (arXiv 2403.08295); Black et al., "pi0", 2024 (arXiv 2410.24164); adaptive norms:
Peebles and Xie, "Scalable Diffusion Models with Transformers", 2023 (arXiv 2212.09748); openpi's ``models/gemma.py``.

Shape letters: B batch, T tokens of the experts that run, S keys (cached ones first), N layers, W width of an expert,
A query heads, K key heads, G query heads of a key head, H width of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from robolift.policy.pi05 import lora
from robolift.policy.pi05.tree import Params
from robolift.policy.sharding import look_up, split_rows

EPSILON = 1e-6
LONGEST_WAVELENGTH = 10_000
HIDDEN = -2.3819763e38
"""Logit of what a token can't see: finite, so that a row that sees nothing is no NaN."""


class Tokens(NamedTuple):
    """Tokens of one expert.

    Attributes:
        expert: What its names end in.
        x: (B, tokens, W).
        condition: (B, W) float32 that adaptive norms read, None for an expert without.
    """

    expert: str
    x: jax.Array
    condition: jax.Array | None = None


class KeyValues(NamedTuple):
    """What later tokens see of earlier ones: keys (already rotated) and values, (N, B, S, K, H) or of one layer."""

    keys: jax.Array
    values: jax.Array


def embed(params: Params, tokens: jax.Array) -> jax.Array:
    """Return (B, L, W) float32 embeddings of (B, L) ``tokens``, times sqrt(W)."""
    table = params["embedder"]["input_embedding"]
    return look_up(table, tokens) * jnp.sqrt(table.shape[1]).astype(table.dtype)


def forward(
    params: Params,
    groups: Sequence[Tokens],
    *,
    positions: jax.Array,
    mask: jax.Array,
    cache: KeyValues | None = None,
    remat: bool,
) -> tuple[list[jax.Array], KeyValues]:
    """Run all layers.

    Args:
        params: Weights below ``PaliGemma/llm``.
        groups: Tokens of the experts that run, in the order of ``positions``.
        positions: (B, T) of each token, among the tokens that are seen.
        mask: (B, T, S) whether a token sees a key.
        cache: Keys and values that precede those of ``groups``.
        remat: Whether each layer is computed again for its gradient.

    Returns:
        The tokens of each group before the final norm, and the keys and values of ``groups`` without ``cache``.
    """

    def step(xs: list[jax.Array], layer: tuple[Params, KeyValues | None]) -> tuple[list[jax.Array], KeyValues]:
        tokens = [group._replace(x=x) for group, x in zip(groups, xs, strict=True)]
        return _layer(*layer, tokens, positions=positions, mask=mask)

    body = jax.checkpoint(step, prevent_cse=False) if remat else step
    return jax.lax.scan(body, [group.x for group in groups], (params["layers"], cache))


def norm(weights: Params, x: jax.Array, condition: jax.Array | None) -> tuple[jax.Array, jax.Array | float]:
    """Return x / rms(x), scaled, and the gate of what is made of it.

    Without ``condition`` the scale is learned and the gate is 1; with it a linear layer of (B, W) ``condition`` gives
    scale, shift and gate.
    """
    wide = x.astype(jnp.float32)
    normed = wide * jnp.reciprocal(jnp.sqrt(jnp.square(wide).mean(-1, keepdims=True) + EPSILON))
    if condition is None:
        return (normed * (1 + weights["scale"])).astype(x.dtype), 1.0
    kernel, bias = (weights["Dense_0"][part].astype(x.dtype) for part in ("kernel", "bias"))
    modulation = split_rows(condition.astype(x.dtype) @ kernel + bias)
    scale, shift, gate = jnp.split(modulation[:, None, :], 3, axis=-1)
    return (normed * (1 + scale) + shift).astype(x.dtype), gate


def rotate(x: jax.Array, positions: jax.Array) -> jax.Array:
    """Rotate the halves of (B, T, heads, H) ``x`` against each other by (B, T) ``positions`` (RoPE)."""
    half = x.shape[-1] // 2
    wavelength = LONGEST_WAVELENGTH ** (jnp.arange(half, dtype=jnp.float32) * (2.0 / x.shape[-1]))
    angle = positions[..., None, None] / wavelength
    sine, cosine = jnp.sin(angle), jnp.cos(angle)
    first, second = jnp.split(x, 2, axis=-1)
    turned = jnp.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=-1)
    return turned.astype(x.dtype)


def _layer(
    layer: Params, cache: KeyValues | None, groups: Sequence[Tokens], *, positions: jax.Array, mask: jax.Array
) -> tuple[list[jax.Array], KeyValues]:
    groups = [g._replace(x=split_rows(g.x)) for g in groups]
    normed, gates = _norms(layer, "pre_attention_norm", groups)
    mixed, made = _attention(layer["attn"], normed, positions=positions, mask=mask, cache=cache)
    groups = [g._replace(x=split_rows(g.x + y * gate)) for g, y, gate in zip(groups, mixed, gates, strict=True)]
    normed, gates = _norms(layer, "pre_ffw_norm", groups)
    fed = [lora.feed_forward(g.x, layer[f"mlp{g.expert}"]) for g in normed]
    return [split_rows(g.x + y * gate) for g, y, gate in zip(groups, fed, gates, strict=True)], made


def _norms(layer: Params, name: str, groups: Sequence[Tokens]) -> tuple[list[Tokens], list[jax.Array | float]]:
    done = [norm(layer[f"{name}{g.expert}"], g.x, g.condition) for g in groups]
    return [g._replace(x=x) for g, (x, _) in zip(groups, done, strict=True)], [gate for _, gate in done]


def _attention(
    weights: Params, groups: Sequence[Tokens], *, positions: jax.Array, mask: jax.Array, cache: KeyValues | None
) -> tuple[list[jax.Array], KeyValues]:
    query = jnp.concatenate([lora.einsum("BTW,AWH->BTAH", g.x, weights[f"q_einsum{g.expert}"]) for g in groups], axis=1)
    both = [lora.einsum("BTW,CKWH->CBTKH", g.x, weights[f"kv_einsum{g.expert}"]) for g in groups]
    key, value = jnp.concatenate(both, axis=2)
    made = KeyValues(rotate(key, positions), value)
    seen = (
        made if cache is None else KeyValues(*(jnp.concatenate(pair, axis=1) for pair in zip(cache, made, strict=True)))
    )
    mixed = attend(rotate(query, positions) * query.shape[-1] ** -0.5, seen, mask)
    ends = [sum(g.x.shape[1] for g in groups[: k + 1]) for k in range(len(groups) - 1)]
    parts = jnp.split(mixed, ends, axis=1)
    named = [weights[f"attn_vec_einsum{g.expert}"] for g in groups]
    return [lora.einsum("BTAH,AHW->BTW", part, w) for part, w in zip(parts, named, strict=True)], made


def attend(query: jax.Array, seen: KeyValues, mask: jax.Array) -> jax.Array:
    """Return (B, T, A, H): for each query head the values of the keys that it sees, by softmax of their products.

    Args:
        query: (B, T, A, H), scaled.
        seen: Keys and values, (B, S, K, H); K divides A, and neighbouring query heads share a key head.
        mask: (B, T, S).
    """
    grouped = query.reshape(*query.shape[:2], seen.keys.shape[2], -1, query.shape[-1])
    logits = jnp.einsum("BTKGH,BSKH->BKGTS", grouped, seen.keys, preferred_element_type=jnp.float32)
    share = jax.nn.softmax(jnp.where(mask[:, None, None], logits, HIDDEN)).astype(query.dtype)
    return jnp.einsum("BKGTS,BSKH->BTKGH", share, seen.values).reshape(query.shape)
