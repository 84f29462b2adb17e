"""The pi0.5 policy: a prefix of pictures and prompt, and the velocity that carries noise to a chunk of actions.

The prefix sees itself alone, the noisy actions see the prefix and each other. So the keys and values of a prefix are
computed once, and sampling runs the action expert against them.

Sources: Physical Intelligence, "pi0.5", 2025 (arXiv 2504.16054); flow matching: Lipman et al., 2023 (arXiv 2210.02747);
openpi's ``models/pi0.py``, with ``pi05=True``. Time 1 is noise, time 0 are actions.

Shape letters: B batch, K cameras, S image side, L prompt tokens, P tokens of the prefix, H action horizon, A padded
action width, W width of the action expert.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from robolift.policy.pi05 import gemma, siglip, tree
from robolift.policy.pi05.config import Pi05Config
from robolift.policy.pi05.gemma import KeyValues, Tokens
from robolift.policy.pi05.tree import Params, Weight
from robolift.policy.sampling import guide
from robolift.policy.sharding import split_rows

SHORTEST_PERIOD, LONGEST_PERIOD = 4e-3, 4.0
"""Periods of the flow time's embedding."""


class Inputs(NamedTuple):
    """What the policy sees.

    Attributes:
        images: (B, K, S, S, 3) float32 in [-1, 1], in the order of the configuration's cameras.
        image_mask: (B, K) whether there is such a picture.
        tokens: (B, L) int32.
        token_mask: (B, L) whether there is such a token; False where the prompt is padded.
    """

    images: jax.Array
    image_mask: jax.Array
    tokens: jax.Array
    token_mask: jax.Array


class Cache(NamedTuple):
    """What the noisy actions see of the prefix.

    Attributes:
        seen: Keys and values, (layers, B, P, key heads, head width).
        mask: (B, P) which tokens of the prefix count.
    """

    seen: KeyValues
    mask: jax.Array


def init(key: jax.Array, config: Pi05Config) -> Params:
    """Return fresh weights, float32, in openpi's tree."""
    weights = tree.weights(config)
    keys = jax.random.split(key, len(weights))
    return tree.unflatten({path: _fresh(one, weights[path]) for one, path in zip(keys, weights, strict=True)})


def velocity(params: Params, config: Pi05Config, inputs: Inputs, noisy: jax.Array, time: jax.Array) -> jax.Array:
    """Return (B, H, A) float32: d(actions) / d(time) at ``noisy``, in one pass of prefix and actions.

    Args:
        params: Weights.
        config: Architecture.
        inputs: What the policy sees.
        noisy: (B, H, A) actions mixed with noise.
        time: (B,) share of noise.
    """
    prefix, prefix_mask = _embed_prefix(params, config, inputs)
    suffix = _embed_suffix(params, config, noisy, time)
    counts = jnp.concatenate([prefix_mask, jnp.ones(noisy.shape[:2], bool)], axis=1)
    in_suffix = jnp.arange(counts.shape[1]) >= prefix_mask.shape[1]
    mask = counts[:, None, :] & (in_suffix[:, None] | ~in_suffix[None, :])
    llm = params["PaliGemma"]["llm"]
    positions = jnp.cumsum(counts, axis=1) - 1
    (_, out), _ = gemma.forward(llm, [prefix, suffix], positions=positions, mask=mask, remat=config.remat)
    return _read_velocity(params, suffix._replace(x=out))


def prefix_cache(params: Params, config: Pi05Config, inputs: Inputs) -> Cache:
    """Return what every evaluation of the velocity sees of ``inputs``."""
    prefix, mask = _embed_prefix(params, config, inputs)
    everything = jnp.broadcast_to(mask[:, None, :], (*mask.shape, mask.shape[1]))
    positions = jnp.cumsum(mask, axis=1) - 1
    llm = params["PaliGemma"]["llm"]
    _, seen = gemma.forward(llm, [prefix], positions=positions, mask=everything, remat=config.remat)
    return Cache(seen, mask)


def cached_velocity(params: Params, config: Pi05Config, cache: Cache, noisy: jax.Array, time: jax.Array) -> jax.Array:
    """Return :func:`velocity` of the inputs that ``cache`` was made of, at the cost of the action expert alone."""
    suffix = _embed_suffix(params, config, noisy, time)
    horizon = noisy.shape[1]
    counts = jnp.concatenate([cache.mask, jnp.ones(noisy.shape[:2], bool)], axis=1)
    mask = jnp.broadcast_to(counts[:, None, :], (len(noisy), horizon, counts.shape[1]))
    positions = cache.mask.sum(axis=1, keepdims=True) + jnp.arange(horizon)
    llm = params["PaliGemma"]["llm"]
    (out,), _ = gemma.forward(llm, [suffix], positions=positions, mask=mask, cache=cache.seen, remat=config.remat)
    return _read_velocity(params, suffix._replace(x=out))


def sample(
    params: Params,
    config: Pi05Config,
    inputs: Inputs,
    noise: jax.Array,
    *,
    steps: int,
    guidance: jax.Array | float = 1.0,
    unconditional: Inputs | None = None,
    real_dims: int | None = None,
) -> jax.Array:
    """Return (B, H, A) actions: Euler steps of equal length from ``noise`` at time 1 to time 0.

    Time is carried from step to step, as openpi does: the fastest waves of its embedding tell the last bits apart.

    Args:
        params: Weights.
        config: Architecture.
        inputs: What the policy sees.
        noise: (B, H, A) standard normal.
        steps: Evaluations of the velocity.
        guidance: 1 follows ``inputs``, more goes beyond, away from ``unconditional`` (classifier-free guidance).
        unconditional: The same with a prompt that doesn't ask for anything; None skips its pass.
        real_dims: Width of the actions before padding, None for all of A. Where padding was no target of training, its
            velocity is what training saw: the noise itself, as what is padded is zero.
    """
    caches = [prefix_cache(params, config, seen) for seen in (inputs, unconditional) if seen is not None]

    def step(_: int, state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        chunk, time = state
        found = [cached_velocity(params, config, c, chunk, jnp.broadcast_to(time, len(chunk))) for c in caches]
        slope = found[0] if unconditional is None else guide(found[1], found[0], guidance)
        if real_dims is not None:
            slope = jnp.concatenate([slope[..., :real_dims], noise[..., real_dims:]], axis=-1)
        return chunk - 1 / steps * slope, time - 1 / steps

    actions: jax.Array = jax.lax.fori_loop(0, steps, step, (noise, jnp.float32(1.0)))[0]
    return actions


def embed_time(time: jax.Array, width: int) -> jax.Array:
    """Return (B, width): sines, then cosines, of (B,) ``time`` at logarithmically spaced periods.

    The order of the products is openpi's: at the shortest period one bit of the angle is 1e-4.
    """
    fraction = jnp.linspace(0.0, 1.0, width // 2)
    period = SHORTEST_PERIOD * (LONGEST_PERIOD / SHORTEST_PERIOD) ** fraction
    angle = time[:, None] * (1.0 / period * 2 * math.pi)
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)


def _fresh(key: jax.Array, weight: Weight) -> jax.Array:
    if weight.spread == 0:
        return jnp.full(weight.shape, weight.mean, jnp.float32)
    return weight.mean + weight.spread * jax.random.normal(key, weight.shape, jnp.float32)


def _embed_prefix(params: Params, config: Pi05Config, inputs: Inputs) -> tuple[Tokens, jax.Array]:
    """Return the tokens of pictures and prompt, and the (B, P) mask of those that count."""
    batch, cameras = inputs.image_mask.shape
    pictures = inputs.images.reshape(-1, *inputs.images.shape[2:])
    models = params["PaliGemma"]
    looks = siglip.encode(models["img"], config.vision, pictures, dtype=config.dtype, remat=config.remat)
    words = gemma.embed(models["llm"], inputs.tokens).astype(config.dtype)
    looks = looks.reshape(batch, cameras * config.vision.num_tokens, -1)
    mask = jnp.concatenate([jnp.repeat(inputs.image_mask, config.vision.num_tokens, axis=1), inputs.token_mask], axis=1)
    return Tokens(tree.EXPERTS[0], jnp.concatenate([looks, words], axis=1)), mask


def _embed_suffix(params: Params, config: Pi05Config, noisy: jax.Array, time: jax.Array) -> Tokens:
    """Return the noisy actions as tokens and the flow time as the condition of the adaptive norms."""
    condition = embed_time(time, config.expert.width)
    for name in ("time_mlp_in", "time_mlp_out"):
        condition = split_rows(jax.nn.silu(_linear(params[name], condition)))
    x = split_rows(_linear(params["action_in_proj"], noisy)).astype(config.dtype)
    return Tokens(tree.EXPERTS[1], x, condition)


def _read_velocity(params: Params, suffix: Tokens) -> jax.Array:
    final = params["PaliGemma"]["llm"][f"final_norm{suffix.expert}"]
    out, _ = gemma.norm(final, suffix.x, suffix.condition)
    return _linear(params["action_out_proj"], out.astype(jnp.float32))


def _linear(weights: Params, x: jax.Array) -> jax.Array:
    out: jax.Array = x @ weights["kernel"] + weights["bias"]
    return out
