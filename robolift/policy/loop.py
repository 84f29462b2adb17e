"""The training loop of a policy: one jitted step over donated state, resumable bit for bit.

What a step draws at random (rows, dropped labels, noise, flow time) is a function of seed and step alone, so the state
to save is weights, their average, the optimizer's moments, the step and the curves so far.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax  # type: ignore[import-untyped]
from jax.sharding import Mesh

from robolift.errors import UsageError
from robolift.logging import get_logger
from robolift.policy import hosts, model, sharding
from robolift.policy import loss as losses
from robolift.policy.checkpoint import StateStore
from robolift.policy.data import ChunkData
from robolift.policy.loss import Batch
from robolift.policy.model import Params, PolicyShape
from robolift.policy.presets import PolicyConfig
from robolift.policy.recipe import Recipe
from robolift.training.sampler import EpochSampler
from robolift.training.stopping import TrainingStoppedError, stop_requests

WARMUP_FRACTION = 0.3
ASK_EVERY = 10
"""Steps after which several machines ask one another whether to stop; each time they wait for the slowest."""
EVAL_KEY = 0x5EED
"""Held-out losses are always measured with the same noise and flow times, so that a curve shows the weights alone."""


class State(NamedTuple):
    """What changes from step to step.

    Attributes:
        params: Weights, float32.
        average: Their exponential moving average.
        optimizer: Moments and counts.
        step: Steps done, int32.
        loss_sum: Sum of the losses since the curve's last row.
    """

    params: Params
    average: Params
    optimizer: Any
    step: jax.Array
    loss_sum: jax.Array


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What training gave.

    Attributes:
        params: Averaged weights, on the host.
        curves: ``train`` and ``validation``: rows of ``step`` and ``loss``.
    """

    params: Params
    curves: dict[str, list[dict[str, Any]]]


def make_schedule(recipe: Recipe) -> optax.Schedule:
    """Return the learning rate as a function of the steps done.

    ``one_cycle`` rises as a cosine from 1/25 of its peak over 30 % of the steps and falls to almost 0.
    ``warmup_cosine`` rises in a line from peak / (warm-up + 1), falls as a cosine and stays (openpi's
    ``CosineDecaySchedule``).
    """
    peak = recipe.learning_rate
    if recipe.schedule == "one_cycle":
        return optax.cosine_onecycle_schedule(max(recipe.steps, 2), peak, pct_start=WARMUP_FRACTION)
    return optax.warmup_cosine_decay_schedule(
        init_value=peak / (recipe.warmup + 1),
        peak_value=peak,
        warmup_steps=recipe.warmup,
        decay_steps=recipe.decayed,
        end_value=recipe.final_learning_rate,
    )


def make_optimizer(recipe: Recipe) -> optax.GradientTransformation:
    """Return AdamW under the recipe's learning rate, with clipped gradients.

    Kernels are decayed; biases and prompt embeddings are not, or those of rare prompts would fade.
    """

    def decayed(params: optax.Params) -> Any:
        return jax.tree_util.tree_map_with_path(lambda path, _: path[-1] == jax.tree_util.DictKey("kernel"), params)

    return optax.chain(
        optax.clip_by_global_norm(recipe.gradient_clip),
        optax.adamw(make_schedule(recipe), b2=recipe.beta2, weight_decay=recipe.weight_decay, mask=decayed),
    )


def make_step(
    shape: PolicyShape, recipe: Recipe, optimizer: optax.GradientTransformation, bare: jax.Array
) -> Callable[[State, Batch], State]:
    """Return the function of one optimizer step."""
    base_key = jax.random.key(recipe.seed)

    def objective(params: Params, key: jax.Array, batch: Batch) -> jax.Array:
        drop_key, noise_key, loss_key = jax.random.split(key, 3)
        noise = recipe.input_noise * jax.random.normal(noise_key, batch.observation.shape)
        changed = batch._replace(
            observation=batch.observation + noise,
            prompt=losses.drop_labels(drop_key, batch.prompt, bare, recipe.label_dropout),
        )
        return losses.loss(params, loss_key, changed, shape)

    def step(state: State, batch: Batch) -> State:
        key = jax.random.fold_in(base_key, state.step)
        value, gradient = jax.value_and_grad(objective)(state.params, key, batch)
        updates, moments = optimizer.update(gradient, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        # A short run isn't held at its random start: the decay warms up as in TensorFlow's ExponentialMovingAverage.
        decay = jnp.minimum(recipe.ema_decay, (1 + state.step) / (10 + state.step))
        average = jax.tree.map(lambda a, p: decay * a + (1 - decay) * p, state.average, params)
        return State(params, average, moments, state.step + 1, state.loss_sum + value)

    return step


def initial_state(
    config: PolicyConfig, shape: PolicyShape, recipe: Recipe, optimizer: optax.GradientTransformation
) -> State:
    """Return the state before the first step; a function of the seed."""
    # Another stream than the steps', whose keys are folded with 0..steps-1.
    params = model.init(jax.random.fold_in(jax.random.key(recipe.seed), 2**31 - 1), config, shape)
    average = jax.tree.map(jnp.copy, params)
    return State(params, average, optimizer.init(params), jnp.zeros((), jnp.int32), jnp.zeros(()))


def fit(config: PolicyConfig, shape: PolicyShape, data: ChunkData, recipe: Recipe, store: StateStore) -> Fit:
    """Train a policy; killed at any moment and called again, it ends with the same bits.

    Raises:
        UsageError: If the devices do not fit, or training diverges.
        DataError: If the saved state is damaged.
        TrainingStoppedError: If SIGTERM came; the state is saved first.
    """
    mesh = sharding.make_mesh(recipe.num_devices, recipe.fsdp_devices)
    optimizer = make_optimizer(recipe)
    state = initial_state(config, shape, recipe, optimizer)
    places = sharding.state_shardings(state, mesh)
    curves: dict[str, list[dict[str, Any]]] = {"train": [], "validation": []}
    if (saved := store.load(state)) is not None:
        state, curves = saved[0], saved[1]["curves"]
        get_logger("policy").info("resumed", step=int(state.step))
    state = hosts.put(state, places)
    rows = sharding.batch_sharding(mesh)
    bare = jnp.asarray(data.bare)
    advance = jax.jit(
        make_step(shape, recipe, optimizer, bare), in_shardings=(places, rows), out_shardings=places, donate_argnums=0
    )
    measure = _held_out_loss(data, shape, mesh)
    sampler = EpochSampler(num_rows=data.num_rows, batch_size=recipe.batch_size, seed=recipe.seed)
    with stop_requests() as asked:
        for step in range(int(state.step), recipe.steps):
            state = advance(state, hosts.put(data.batch(sampler.batch(step)), rows))
            done = step + 1
            if done % recipe.log_every == 0 or done == recipe.steps:
                state = _record(state, done, recipe, curves, measure)
            stop = done < recipe.steps and _must_stop(done, asked)
            if done < recipe.steps and (done % recipe.save_every == 0 or stop):
                store.save(state, {"curves": curves}, step=done)
            if stop:
                raise TrainingStoppedError(f"stopped after step {done}, its state is saved; run again to resume")
    return Fit(params=hosts.to_host(state.average), curves=curves)


def _must_stop(done: int, asked: threading.Event) -> bool:
    """Tell whether to stop after step ``done``: all machines after the same one, or those left would wait for ever."""
    if jax.process_count() > 1 and done % ASK_EVERY:
        return False
    return hosts.any_of_us(said=asked.is_set())


def _held_out_loss(data: ChunkData, shape: PolicyShape, mesh: Mesh) -> Callable[[Params], jax.Array] | None:
    batch = data.held_out()
    if batch is None:
        return None
    placed = jax.device_put(batch) if jax.process_count() == 1 else hosts.put(batch, sharding.replicated(mesh))
    return jax.jit(lambda params: losses.loss(params, jax.random.key(EVAL_KEY), placed, shape))


def _record(
    state: State,
    done: int,
    recipe: Recipe,
    curves: dict[str, list[dict[str, Any]]],
    measure: Callable[[Params], jax.Array] | None,
) -> State:
    """Add what is due after step ``done`` to ``curves``; return the state with a fresh sum of losses."""
    since = (done - 1) % recipe.log_every + 1
    loss = float(state.loss_sum) / since
    curves["train"].append({"step": done, "loss": loss})
    if not math.isfinite(loss):
        raise UsageError(f"training diverged: the loss is {loss} at step {done}; lower learning_rate")
    facts = {"loss": round(loss, 5)}
    if measure is not None:
        held_out = float(measure(state.average))
        curves["validation"].append({"step": done, "loss": held_out})
        facts["held_out_loss"] = round(held_out, 5)
    get_logger("policy").info("step", step=done, steps=recipe.steps, **facts)
    return state._replace(loss_sum=jnp.zeros_like(state.loss_sum))
