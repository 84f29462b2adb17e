"""Training of the policy network of :mod:`robolift.policy.model`, by the loop of :mod:`robolift.policy.learning`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax  # type: ignore[import-untyped]
from jax.sharding import Mesh

from robolift.policy import hosts, learning, model, sharding
from robolift.policy import loss as losses
from robolift.policy.data import ChunkData
from robolift.policy.learning import EVAL_KEY, Fit, State, Store, make_optimizer, make_schedule
from robolift.policy.loss import Batch
from robolift.policy.model import Params, PolicyShape
from robolift.policy.presets import PolicyConfig
from robolift.policy.recipe import Recipe

__all__ = ["EVAL_KEY", "fit", "initial_state", "make_optimizer", "make_schedule", "make_step"]


def make_objective(
    shape: PolicyShape, recipe: Recipe, bare: jax.Array
) -> Callable[[Params, Params, jax.Array, Batch], jax.Array]:
    """Return the loss under noise on the inputs and with labels dropped; nothing of this network is frozen."""

    def objective(params: Params, _frozen: Params, key: jax.Array, batch: Batch) -> jax.Array:
        drop_key, noise_key, loss_key = jax.random.split(key, 3)
        noise = recipe.input_noise * jax.random.normal(noise_key, batch.observation.shape)
        changed = batch._replace(
            observation=batch.observation + noise,
            prompt=losses.drop_labels(drop_key, batch.prompt, bare, recipe.label_dropout),
        )
        return losses.loss(params, loss_key, changed, shape)

    return objective


def make_step(
    shape: PolicyShape, recipe: Recipe, optimizer: optax.GradientTransformation, bare: jax.Array
) -> Callable[..., State]:
    """Return the function of one optimizer step: (state, batch) -> state."""
    return learning.make_step(make_objective(shape, recipe, bare), recipe, optimizer)


def initial_state(
    config: PolicyConfig, shape: PolicyShape, recipe: Recipe, optimizer: optax.GradientTransformation
) -> State:
    """Return the state before the first step; a function of the seed."""
    return learning.begin(model.init(learning.weights_key(recipe.seed), config, shape), optimizer)


@dataclass(frozen=True)
class ChunkLearner:
    """How :func:`learning.run` trains this network; a :class:`~robolift.policy.learning.Learner`.

    Attributes:
        config: Sizes.
        shape: What data and objective decide.
        recipe: How.
        bare: (P,) for each prompt the row of its task without a label.
        optimizer: Of all weights.
    """

    config: PolicyConfig
    shape: PolicyShape
    recipe: Recipe
    bare: jax.Array
    optimizer: optax.GradientTransformation

    def template(self) -> tuple[State, Params]:
        """Return shapes and types of the state; no weight is frozen."""
        return jax.eval_shape(self._state), {}

    def begin(self, places: State, _frozen_places: Params) -> tuple[State, Params]:
        """Return the state before the first step."""
        return hosts.put(self._state(), places), {}

    def frozen(self, _places: Params) -> Params:
        """Return no weights."""
        return {}

    def objective(self, params: Params, frozen: Params, key: jax.Array, batch: Batch) -> jax.Array:
        """Return the loss that is minimised."""
        return make_objective(self.shape, self.recipe, self.bare)(params, frozen, key, batch)

    def measure(self, _frozen: Params, batch: Batch, mesh: Mesh) -> Callable[[Params], jax.Array]:
        """Return the compiled loss on held-out rows, which every device holds whole."""
        alone = jax.process_count() == 1
        placed = jax.device_put(batch) if alone else hosts.put(batch, sharding.replicated(mesh))
        return jax.jit(lambda params: losses.loss(params, jax.random.key(EVAL_KEY), placed, self.shape))

    def _state(self) -> State:
        return initial_state(self.config, self.shape, self.recipe, self.optimizer)


def fit(config: PolicyConfig, shape: PolicyShape, data: ChunkData, recipe: Recipe, store: Store) -> Fit:
    """Train a policy; see :func:`learning.run`."""
    learner = ChunkLearner(config, shape, recipe, jnp.asarray(data.bare), make_optimizer(recipe))
    return learning.run(learner, data, recipe, store)
