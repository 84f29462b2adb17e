"""The vision tower: SigLIP's transformer of patches, without pooling, projected to the width of the language model.

Patches and positions are float32, layers run in the type of the computation, norms and softmax in float32.

Source: Zhai et al., "Sigmoid Loss for Language Image Pre-Training", 2023 (arXiv 2303.15343); openpi's
``models/siglip.py``.

Shape letters: N pictures, S side, T tokens of a picture, W width, A heads, H width of a head.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from robolift.policy import xla  # noqa: F401
from robolift.policy.pi05.config import SiglipConfig
from robolift.policy.pi05.tree import Params
from robolift.policy.sharding import split_rows

EPSILON = 1e-6


def encode(params: Params, config: SiglipConfig, images: jax.Array, *, dtype: str, remat: bool) -> jax.Array:
    """Return (N, T, width of the language model) tokens of ``images``.

    Args:
        params: Weights below ``PaliGemma/img``.
        config: Sizes.
        images: (N, S, S, 3) float32 in [-1, 1].
        dtype: Of the computation.
        remat: Whether each layer is computed again for its gradient.
    """
    tokens = split_rows(embed_patches(params, config, images) + params["pos_embedding"]).astype(dtype)

    def step(x: jax.Array, layer: Params) -> tuple[jax.Array, None]:
        return _layer(layer, x), None

    body = jax.checkpoint(step, prevent_cse=False) if remat else step
    tokens, _ = jax.lax.scan(body, tokens, params["Transformer"]["encoderblock"])
    return split_rows(_dense(params["head"], _layer_norm(params["Transformer"]["encoder_norm"], tokens)))


def embed_patches(params: Params, config: SiglipConfig, images: jax.Array) -> jax.Array:
    """Return (N, T, W) float32: each patch, row by row, times the kernel (a convolution with stride = kernel size)."""
    rows = config.image_side // config.patch
    cut = images.reshape(-1, rows, config.patch, rows, config.patch, 3).swapaxes(2, 3)
    kernel = params["embedding"]["kernel"].reshape(-1, config.width)
    patches: jax.Array = cut.reshape(len(images), rows * rows, -1) @ kernel + params["embedding"]["bias"]
    return patches


def _layer(layer: Params, x: jax.Array) -> jax.Array:
    x = split_rows(x)
    x = split_rows(x + _attention(layer["MultiHeadDotProductAttention_0"], _layer_norm(layer["LayerNorm_0"], x)))
    mlp, hidden = layer["MlpBlock_0"], _layer_norm(layer["LayerNorm_1"], x)
    return split_rows(x + _dense(mlp["Dense_1"], jax.nn.gelu(_dense(mlp["Dense_0"], hidden))))


def _attention(weights: Params, x: jax.Array) -> jax.Array:
    def heads(name: str) -> jax.Array:
        kernel, bias = (weights[name][part].astype(x.dtype) for part in ("kernel", "bias"))
        projected: jax.Array = jnp.einsum("NTW,WAH->NTAH", x, kernel) + bias
        return projected

    query, key, value = heads("query"), heads("key"), heads("value")
    query = query * query.shape[-1] ** -0.5
    logits = jnp.einsum("NTAH,NUAH->NATU", query, key, preferred_element_type=jnp.float32)
    mixed = jnp.einsum("NATU,NUAH->NTAH", jax.nn.softmax(logits).astype(x.dtype), value)
    kernel, bias = (weights["out"][part].astype(x.dtype) for part in ("kernel", "bias"))
    out: jax.Array = jnp.einsum("NTAH,AHW->NTW", mixed, kernel) + bias
    return out


def _layer_norm(weights: Params, x: jax.Array) -> jax.Array:
    wide = x.astype(jnp.float32)
    centred = wide - wide.mean(-1, keepdims=True)
    scale = jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + EPSILON)
    out: jax.Array = (centred * scale * weights["scale"] + weights["bias"]).astype(x.dtype)
    return out


def _dense(weights: Params, x: jax.Array) -> jax.Array:
    out: jax.Array = x @ weights["kernel"].astype(x.dtype) + weights["bias"].astype(x.dtype)
    return out
