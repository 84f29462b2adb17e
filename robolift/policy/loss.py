"""What a policy is trained to do: flow matching or regression of the action chunk, over real actions only.

Formulas of openpi's pi0.5 (``models/pi0.py``). A chunk that reaches past the end of its episode, or into a pause, is
cut there: what is predicted beyond is no error.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from robolift.policy import model
from robolift.policy.model import Params, PolicyShape

TIME_ALPHA = 1.5
TIME_LOW, TIME_SPAN = 0.001, 0.999


class Batch(NamedTuple):
    """Rows to train on.

    Attributes:
        observation: (B, D) normalised states and features.
        prompt: (B,) int32 rows of the prompt table.
        actions: (B, H, A) normalised.
        real: (B, H) 1 where the action exists, 0 past the end.
        weight: (B,) loss weight.
    """

    observation: jax.Array
    prompt: jax.Array
    actions: jax.Array
    real: jax.Array
    weight: jax.Array


def flow_time(uniform: jax.Array) -> jax.Array:
    """Return t = 0.001 + 0.999 * Beta(1.5, 1) from uniform numbers; t = 1 is noise.

    Beta(a, 1) has the distribution function x^a, so its inverse is exact and costs one power.
    """
    return TIME_LOW + TIME_SPAN * uniform ** (1 / TIME_ALPHA)


def interpolate(actions: jax.Array, noise: jax.Array, time: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return x_t = t * noise + (1 - t) * actions, and the velocity noise - actions.

    Args:
        actions: (B, H, A).
        noise: (B, H, A).
        time: (B,).
    """
    t = time[:, None, None]
    return t * noise + (1 - t) * actions, noise - actions


def mean_square(prediction: jax.Array, target: jax.Array) -> jax.Array:
    """Return (B, H): the squared error of (B, H, A), averaged over the dimensions of an action."""
    return ((prediction - target) ** 2).mean(-1)


def masked_mean(errors: jax.Array, real: jax.Array, weight: jax.Array) -> jax.Array:
    """Return the weighted mean over the actions that exist.

    Args:
        errors: (B, H).
        real: (B, H), 1 or 0.
        weight: (B,).
    """
    return (errors * real * weight[:, None]).sum() / real.sum()


def drop_labels(key: jax.Array, prompt: jax.Array, bare: jax.Array, rate: float) -> jax.Array:
    """Return ``prompt`` with a share ``rate`` of rows replaced by the bare prompt of the same task.

    Args:
        key: Random key.
        prompt: (B,) rows of the prompt table.
        bare: (P,) for each prompt the row of its bare task.
        rate: Probability of dropping, independent for each row.
    """
    return jnp.where(jax.random.uniform(key, prompt.shape) < rate, bare[prompt], prompt)


def flow_errors(
    velocity: Callable[[jax.Array, jax.Array], jax.Array],
    actions: jax.Array,
    noise: jax.Array,
    time: jax.Array,
    *,
    real_dims: int,
) -> jax.Array:
    """Return (B, H): the mean of (velocity - (noise - actions))^2 over the real dimensions.

    Args:
        velocity: (noisy chunk (B, H, A), time (B,)) -> (B, H, A).
        actions: (B, H, A) normalised.
        noise: (B, H, A) standard normal.
        time: (B,) share of noise.
        real_dims: Dimensions before padding; what is padded is no error.
    """
    chunk, target = interpolate(actions, noise, time)
    return mean_square(velocity(chunk, time)[..., :real_dims], target[..., :real_dims])


def flow_loss(
    velocity: Callable[[jax.Array, jax.Array], jax.Array],
    key: jax.Array,
    actions: jax.Array,
    real: jax.Array,
    weight: jax.Array,
    *,
    real_dims: int,
) -> jax.Array:
    """Return the loss of a flow on ``actions``.

    Args:
        velocity: (noisy chunk (B, H, A), time (B,)) -> (B, H, A).
        key: Draws noise and time.
        actions: (B, H, A) normalised.
        real: (B, H) 1 where the action exists, 0 past the end.
        weight: (B,) loss weight.
        real_dims: Dimensions before padding; what is padded is no error.
    """
    noise_key, time_key = jax.random.split(key)
    noise = jax.random.normal(noise_key, actions.shape)
    time = flow_time(jax.random.uniform(time_key, weight.shape))
    return masked_mean(flow_errors(velocity, actions, noise, time, real_dims=real_dims), real, weight)


def loss(params: Params, key: jax.Array, batch: Batch, shape: PolicyShape) -> jax.Array:
    """Return the objective's loss on ``batch``; ``key`` draws the flow's noise and time."""
    cached = model.prefix(params, batch.observation, batch.prompt)

    def predict(chunk: jax.Array | None = None, time: jax.Array | None = None) -> jax.Array:
        return model.predict(params, cached, shape, chunk, time)

    if shape.objective == "regression":
        return masked_mean(mean_square(predict(), batch.actions), batch.real, batch.weight)
    return flow_loss(predict, key, batch.actions, batch.real, batch.weight, real_dims=shape.action_dim)
