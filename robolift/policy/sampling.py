"""From observation and prompt to a chunk of actions: Euler integration and classifier-free guidance."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from robolift.policy import model
from robolift.policy.model import Params, PolicyShape


def guide(unconditional: jax.Array, conditional: jax.Array, strength: jax.Array | float) -> jax.Array:
    """Return u + strength * (c - u): 0 gives u, 1 gives c, more goes beyond c (RECAP, classifier-free guidance)."""
    return unconditional + strength * (conditional - unconditional)


def integrate(velocity: Callable[[jax.Array, jax.Array], jax.Array], noise: jax.Array, num_steps: int) -> jax.Array:
    """Follow ``velocity`` from t = 1 to t = 0 in equal Euler steps.

    Args:
        velocity: (chunk (B, H, A), time (B,)) -> (B, H, A).
        noise: (B, H, A), the chunk at t = 1.
        num_steps: Evaluations of ``velocity``.
    """

    def step(k: jax.Array, chunk: jax.Array) -> jax.Array:
        time = jnp.full(len(noise), 1 - k / num_steps)
        return chunk - velocity(chunk, time) / num_steps

    actions: jax.Array = jax.lax.fori_loop(0, num_steps, step, noise)
    return actions


def sample(
    params: Params,
    shape: PolicyShape,
    observation: jax.Array,
    prompt: jax.Array,
    noise: jax.Array,
    *,
    num_steps: int,
    bare: jax.Array | None = None,
    strength: jax.Array | float = 1.0,
) -> jax.Array:
    """Return (B, H, A) normalised actions.

    Args:
        params: Weights.
        shape: Shape of the policy.
        observation: (B, D) normalised.
        prompt: (B,) rows of the prompt table.
        noise: (B, H, A) standard normal; regression does not use it.
        num_steps: Euler steps.
        bare: (B,) rows of the bare prompts; None skips the second pass, which is right at strength 1.
        strength: Guidance; also applied to a regression's outputs.
    """
    rows = [prompt] if bare is None else [prompt, bare]
    cached = [model.prefix(params, observation, row) for row in rows]

    def predict(chunk: jax.Array | None = None, time: jax.Array | None = None) -> jax.Array:
        outputs = [model.predict(params, c, shape, chunk, time) for c in cached]
        return outputs[0] if bare is None else guide(outputs[1], outputs[0], strength)

    if shape.objective == "regression":
        return predict()
    return integrate(predict, noise, num_steps)
