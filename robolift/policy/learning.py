"""The training loop, whichever network is trained: one jitted step over donated state, resumable bit for bit.

What a step draws at random (rows, dropped labels, noise, flow time) is a function of seed and step alone, so the state
to save is weights, their average, the optimizer's moments, the step and the curves so far. A network whose weights are
partly frozen differentiates, averages and saves the trained ones only.
"""

from __future__ import annotations

import contextlib
import functools
import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax  # type: ignore[import-untyped]
from jax.sharding import Mesh

from robolift.data.loader import Loader
from robolift.errors import UsageError
from robolift.logging import get_logger
from robolift.policy import hosts, sharding
from robolift.policy.model import Params
from robolift.policy.recipe import Recipe
from robolift.policy.recorder import JaxRecorder
from robolift.training.profiling import NO_PROFILE, Profile, StepTrace
from robolift.training.sampler import EpochSampler
from robolift.training.stopping import TrainingStoppedError, stop_requests

WARMUP_FRACTION = 0.3
ASK_EVERY = 10
"""Steps after which several machines ask one another whether to stop; each time they wait for the slowest."""

EVAL_KEY = 0x5EED
"""Held-out losses are always measured with the same noise and flow times, so that a curve shows the weights alone."""
WEIGHTS_STREAM = 2**31 - 1
"""Another stream than the steps', whose keys are folded with 0..steps-1."""

BatchT = TypeVar("BatchT")
Batch_contra = TypeVar("Batch_contra", contravariant=True)
Batch_co = TypeVar("Batch_co", covariant=True)
Curves = dict[str, list[dict[str, Any]]]


class State(NamedTuple):
    """What changes from step to step.

    Attributes:
        params: Trained weights, float32.
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
        params: Averaged trained weights, on the host.
        curves: ``train`` and ``validation``: rows of ``step`` and ``loss``.
    """

    params: Params
    curves: Curves


class Learner(Protocol[Batch_contra]):
    """What the loop asks of a network and its objective."""

    @property
    def optimizer(self) -> optax.GradientTransformation:
        """The optimizer of the trained weights."""

    def template(self) -> tuple[State, Params]:
        """Return shapes and types of the state and of the frozen weights, without computing or reading any."""

    def begin(self, places: State, frozen_places: Params) -> tuple[State, Params]:
        """Return the state before the first step and the frozen weights, where they are wanted.

        A function of the recipe alone.
        """

    def frozen(self, places: Params) -> Params:
        """Return the frozen weights alone; they are no part of the state that a killed run goes on from."""

    def objective(self, params: Params, frozen: Params, key: jax.Array, batch: Batch_contra) -> jax.Array:
        """Return the loss that is minimised; ``key`` draws noise, flow time and dropped labels."""

    def measure(self, frozen: Params, batch: Batch_contra, mesh: Mesh) -> Callable[[Params], jax.Array]:
        """Return the compiled loss on held-out rows, always with the same noise, as a function of trained weights."""


class Rows(Protocol[Batch_co]):
    """What the loop asks of the training data."""

    @property
    def num_rows(self) -> int:
        """Rows to train on."""

    def batch(self, positions: np.ndarray) -> Batch_co:
        """Return the training rows at ``positions`` in 0..num_rows-1, a tuple of arrays whose first axis is the row."""

    def held_out(self) -> Batch_co | None:
        """Return rows to measure on, None if there are none."""


@dataclass(frozen=True)
class StepRows(Generic[Batch_co]):
    """Gathers what this process trains on in a step.

    Attributes:
        data: The training data.
        sampler: Which of its rows make up the whole batch.
        mine: Which of those lie on devices of this process.
    """

    data: Rows[Batch_co]
    sampler: EpochSampler
    mine: np.ndarray

    def __call__(self, step: int) -> Batch_co:
        """Return the rows of ``step``."""
        return self.data.batch(self.sampler.batch(step)[self.mine])


class Store(Protocol):
    """What the loop asks of the place that a killed run goes on from. Every process of a job calls it alike."""

    def tidy(self) -> None:
        """Remove what killed saves left; only for the run whose state this is."""

    def load(self, template: Any, places: Any) -> tuple[Any, dict[str, Any]] | None:
        """Return a tree in the form of ``template`` where ``places`` wants it, and its document; None without a save.

        No array of it is held a second time.
        """

    def save(self, tree: Any, document: Mapping[str, Any], *, step: int) -> None:
        """Copy ``tree`` from the devices and write it, perhaps after the return; the save before is complete then."""

    def wait(self) -> None:
        """Wait until the last save is complete."""

    def close(self) -> None:
        """Wait likewise, and give up what is held; a later call takes it up again."""


def make_sampler(recipe: Recipe, num_rows: int) -> EpochSampler:
    """Return which of ``num_rows`` rows each step trains on."""
    return EpochSampler(
        num_rows=num_rows,
        batch_size=recipe.batch_size,
        seed=recipe.seed,
        block=recipe.shuffle_block,
        window=recipe.shuffle_window,
    )


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


def is_kernel(path: tuple[Any, ...]) -> bool:
    """Tell whether the weight at a path of a tree is a layer's kernel."""
    return bool(path[-1] == jax.tree_util.DictKey("kernel"))


def make_optimizer(
    recipe: Recipe, decays: Callable[[tuple[Any, ...]], bool] = is_kernel
) -> optax.GradientTransformation:
    """Return AdamW under the recipe's learning rate, with gradients clipped to their norm over all trained weights.

    Args:
        recipe: Rates and decay.
        decays: Tells by its path whether a weight decays. Kernels do; biases and prompt embeddings do not, or those of
            rare prompts would fade.
    """

    def decayed(params: optax.Params) -> Any:
        return jax.tree_util.tree_map_with_path(lambda path, _: decays(path), params)

    return optax.chain(
        optax.clip_by_global_norm(recipe.gradient_clip),
        optax.adamw(make_schedule(recipe), b2=recipe.beta2, weight_decay=recipe.weight_decay, mask=decayed),
    )


def weights_key(seed: int) -> jax.Array:
    """Return the key that fresh weights are drawn with."""
    return jax.random.fold_in(jax.random.key(seed), WEIGHTS_STREAM)


def begin(params: Params, optimizer: optax.GradientTransformation) -> State:
    """Return the state before the first step."""
    average = jax.tree.map(jnp.copy, params)
    return State(params, average, optimizer.init(params), jnp.zeros((), jnp.int32), jnp.zeros(()))


def make_step(
    objective: Callable[[Params, Params, jax.Array, BatchT], jax.Array],
    recipe: Recipe,
    optimizer: optax.GradientTransformation,
) -> Callable[..., State]:
    """Return the function of one optimizer step: (state, batch, frozen weights, by default none) -> state."""
    base_key = jax.random.key(recipe.seed)

    def step(state: State, batch: BatchT, frozen: Params | None = None) -> State:
        key = jax.random.fold_in(base_key, state.step)
        value, gradient = jax.value_and_grad(objective)(state.params, frozen or {}, key, batch)
        updates, moments = optimizer.update(gradient, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        # A short run isn't held at its random start: the decay warms up as in TensorFlow's ExponentialMovingAverage.
        decay = jnp.minimum(recipe.ema_decay, (1 + state.step) / (10 + state.step))
        average = jax.tree.map(lambda a, p: decay * a + (1 - decay) * p, state.average, params)
        return State(params, average, moments, state.step + 1, state.loss_sum + value)

    return step


def compiled_step(
    learner: Learner[BatchT], recipe: Recipe, places: tuple[State, Params], rows: jax.sharding.Sharding
) -> Any:
    """Return :func:`make_step` compiled; the state that it is given is gone, and its memory holds the new one.

    Args:
        learner: The network and its objective.
        recipe: How.
        places: Where state and frozen weights lie.
        rows: Where the rows of a batch lie.
    """
    return jax.jit(
        make_step(learner.objective, recipe, learner.optimizer),
        in_shardings=(places[0], rows, places[1]),
        out_shardings=places[0],
        donate_argnums=0,
    )


def run(
    learner: Learner[BatchT],
    data: Rows[BatchT],
    recipe: Recipe,
    store: Store,
    origin: Store | None = None,
    *,
    profile: Profile = NO_PROFILE,
) -> Fit:
    """Train; killed at any moment and called again, it ends with the same bits.

    Args:
        learner: The network and its objective.
        data: What it is trained on.
        recipe: How.
        store: Where the state is kept.
        origin: Holds the state of a run with another number of devices, to begin with if there is none in ``store``.
        profile: Steps that the main process records.

    Raises:
        UsageError: If the devices do not fit, or training diverges.
        DataError: If the saved state is damaged.
        TrainingStoppedError: If SIGTERM came; the state is saved first.
    """
    mesh = sharding.make_mesh(recipe.num_devices, recipe.fsdp_devices)
    held_out, rows = data.held_out(), sharding.batch_sharding(mesh)
    with contextlib.closing(store):
        store.tidy()
        state, frozen, curves, places = _begun(learner, mesh, store, origin)
        advance = compiled_step(learner, recipe, places, rows)
        measure = None if held_out is None else learner.measure(frozen, held_out, mesh)
        first = int(state.step)
        rows_of = StepRows(data, make_sampler(recipe, data.num_rows), hosts.own_rows(rows, recipe.batch_size))
        left, workers = recipe.steps - first, recipe.loader_workers
        trace = StepTrace(profile if hosts.this_host().is_main else NO_PROFILE, JaxRecorder())
        # A SIGTERM after the last step must not cut the last save off either, so it is complete before the end.
        with (
            stop_requests() as asked,
            contextlib.closing(store),
            Loader(rows_of, first_step=first, num_steps=left, num_workers=workers) as batches,
            jax.set_mesh(mesh),
            trace,
        ):
            for step, batch in enumerate(batches, first):
                state = advance(state, hosts.put_rows(batch, rows, recipe.batch_size), frozen)
                done = step + 1
                if done % recipe.log_every == 0 or done == recipe.steps:
                    state = _record(state, done, recipe, curves, measure)
                stop = done < recipe.steps and _must_stop(state, done, asked)
                if done < recipe.steps and (done % recipe.save_every == 0 or stop):
                    store.save(state, {"curves": curves}, step=done)
                if stop:
                    store.wait()
                    raise TrainingStoppedError(f"stopped after step {done}, its state is saved; run again to resume")
                trace.advanced(functools.partial(jax.block_until_ready, state))
        return Fit(params=hosts.to_host(state.average), curves=curves)


def _begun(
    learner: Learner[BatchT], mesh: Mesh, store: Store, origin: Store | None
) -> tuple[State, Params, Curves, tuple[State, Params]]:
    """Return state, frozen weights and curves that training begins or goes on with, and where the first two lie."""
    template, frozen_template = learner.template()
    places, frozen_places = (sharding.state_shardings(tree, mesh) for tree in (template, frozen_template))
    saved = store.load(template, places)
    if saved is None and origin is not None:
        with contextlib.closing(origin):
            saved = origin.load(template, places)
    if saved is None:
        state, frozen = learner.begin(places, frozen_places)
        return state, frozen, {"train": [], "validation": []}, (places, frozen_places)
    state, document = saved
    get_logger("policy").info("resumed", step=int(state.step))
    return state, learner.frozen(frozen_places), document["curves"], (places, frozen_places)


def _must_stop(state: State, done: int, asked: threading.Event) -> bool:
    """Tell whether to stop after step ``done``: all machines after the same one, or those left would wait for ever."""
    if jax.process_count() == 1:
        return asked.is_set()
    if done % ASK_EVERY:
        return False
    # Two programs that talk to other machines must not be under way at once: they may begin in another order there.
    jax.block_until_ready(state)  # type: ignore[no-untyped-call]
    return hosts.any_of_us(said=asked.is_set())


def _record(
    state: State,
    done: int,
    recipe: Recipe,
    curves: Curves,
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
