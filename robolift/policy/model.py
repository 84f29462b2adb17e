"""The policy network: a prefix of what was observed and asked for, and a chunk of actions.

Weights are a plain tree of dictionaries. The prefix (observation and prompt) is one linear layer whose output every
evaluation of the network adds to; sampling computes it once, as pi0.5 caches the keys and values of its prefix.

Shape letters: B batch, D observation (states, then features), P prompts, E prompt width, H action horizon, A action,
W width of a layer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp

from robolift.policy import xla  # noqa: F401
from robolift.policy.presets import PolicyConfig

Params = dict[str, Any]
Objective = Literal["flow", "regression"]

SHORTEST_PERIOD, LONGEST_PERIOD = 4e-3, 4.0
"""Periods of the flow time's embedding, as in pi0 and pi0.5."""


@dataclass(frozen=True, kw_only=True)
class PolicyShape:
    """What data and objective decide about a policy.

    Attributes:
        observation_dim: D.
        num_prompts: P.
        action_horizon: H.
        action_dim: A.
        objective: ``flow`` has inputs for a noisy chunk and the flow time, ``regression`` has not.
    """

    observation_dim: int
    num_prompts: int
    action_horizon: int
    action_dim: int
    objective: Objective


def _linear(key: jax.Array, width_in: int, width_out: int, *, bias: bool = True) -> Params:
    kernel = jax.random.normal(key, (width_in, width_out)) / math.sqrt(width_in)
    return {"kernel": kernel, "bias": jnp.zeros(width_out)} if bias else {"kernel": kernel}


def init(key: jax.Array, config: PolicyConfig, shape: PolicyShape) -> Params:
    """Return fresh weights, float32.

    A prompt's embedding is learned and starts at unit scale, so that two prompts differ from the first step on. Frozen
    text embeddings of "positive" and "negative" are nearly equal and a policy learns to ignore them.
    """
    keys = jax.random.split(key, 5 + len(config.hidden_widths))
    first, chunk_dim = config.hidden_widths[0], shape.action_horizon * shape.action_dim
    params: Params = {
        "prompt": jax.random.normal(keys[0], (shape.num_prompts, config.prompt_width)),
        "prefix": _linear(keys[1], shape.observation_dim + config.prompt_width, first),
        "hidden": [
            _linear(k, a, b) for k, a, b in zip(keys[5:], config.hidden_widths, config.hidden_widths[1:], strict=False)
        ],
        "output": _linear(keys[2], config.hidden_widths[-1], chunk_dim),
    }
    if shape.objective == "flow":
        params["chunk"] = _linear(keys[3], chunk_dim, first, bias=False)
        params["time"] = _linear(keys[4], config.time_width, first, bias=False)
    return params


def _apply(layer: Params, x: jax.Array) -> jax.Array:
    out: jax.Array = x @ layer["kernel"]
    return out + layer["bias"] if "bias" in layer else out


def prefix(params: Params, observation: jax.Array, prompt: jax.Array) -> jax.Array:
    """Return the (B, W) part of the first layer that does not change while sampling.

    Args:
        params: Weights.
        observation: (B, D) normalised.
        prompt: (B,) row of each prompt in the prompt table.
    """
    return _apply(params["prefix"], jnp.concatenate([observation, params["prompt"][prompt]], axis=-1))


def embed_time(time: jax.Array, width: int) -> jax.Array:
    """Return (B, width): sines, then cosines, of (B,) ``time`` at logarithmically spaced periods (pi0)."""
    fraction = jnp.linspace(0.0, 1.0, width // 2)
    period = SHORTEST_PERIOD * (LONGEST_PERIOD / SHORTEST_PERIOD) ** fraction
    angle = 2 * math.pi * time[:, None] / period
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)


def predict(
    params: Params, cached: jax.Array, shape: PolicyShape, chunk: jax.Array | None = None, time: jax.Array | None = None
) -> jax.Array:
    """Return (B, H, A): the velocity of a noisy chunk (flow), or the actions themselves (regression).

    Args:
        params: Weights.
        cached: (B, W) from :func:`prefix`.
        shape: Shape of the policy.
        chunk: (B, H, A) noisy actions; only for flow.
        time: (B,) flow time, 1 is noise; only for flow.
    """
    x = cached
    if chunk is not None and time is not None:
        x = x + _apply(params["chunk"], chunk.reshape(len(chunk), -1))
        x = x + _apply(params["time"], embed_time(time, params["time"]["kernel"].shape[0]))
    for layer in params["hidden"]:
        x = _apply(layer, jax.nn.silu(x))
    flat = _apply(params["output"], jax.nn.silu(x))
    return flat.reshape(-1, shape.action_horizon, shape.action_dim)


def count(params: Params) -> int:
    """Return the number of weights."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
