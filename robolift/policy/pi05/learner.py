"""How the training loop trains pi0.5: which weights, from where, on which devices, and by which loss.

The loop holds weights by path: trained ones in its state, frozen ones beside it. Only trained weights have gradients,
moments and an average, and only they are saved for a rerun.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax  # type: ignore[import-untyped]
from jax.sharding import Mesh

from robolift.policy import hosts, learning, sharding
from robolift.policy.learning import EVAL_KEY, State
from robolift.policy.loss import flow_loss
from robolift.policy.pi05 import freeze, network, tree, weights
from robolift.policy.pi05.batches import Batch, as_inputs
from robolift.policy.pi05.config import Pi05Config
from robolift.policy.recipe import Recipe

Flat = dict[str, Any]
"""Weights by path."""
UNDECAYED = ("bias", "scale", "input_embedding", "pos_embedding")
CAST = ("/w", "/gating_einsum", "/linear")
"""Matrices that the network casts to the type of its computation whenever it uses them: frozen, they are kept in it."""


def decays(path: tuple[Any, ...]) -> bool:
    """Tell whether a weight decays: matrices do, biases, norms and embeddings do not."""
    return str(path[-1].key).rsplit("/", 1)[-1] not in UNDECAYED


@dataclass(frozen=True, kw_only=True)
class Pi05Learner:
    """A :class:`robolift.policy.learning.Learner`.

    Attributes:
        config: Architecture.
        recipe: How; if it states the digest of its weights, each time they are read they must have it.
        real_dims: Dimensions of an action before it is padded.
        optimizer: Of the trained weights.
    """

    config: Pi05Config
    recipe: Recipe
    real_dims: int
    optimizer: optax.GradientTransformation

    @functools.cached_property
    def trained(self) -> frozenset[str]:
        """Paths of the weights that are trained."""
        flags = tree.flatten(freeze.trained(self.config, self.recipe.frozen))
        return frozenset(path for path, trains in flags.items() if trains)

    def template(self) -> tuple[State, Flat]:
        """Return shapes and types of the state and of the frozen weights."""
        shapes = {
            path: jax.ShapeDtypeStruct(shape, self._dtype(path))  # type: ignore[no-untyped-call]
            for path, shape in tree.names_and_shapes(self.config).items()
        }
        params, frozen = self._parted(shapes)
        return jax.eval_shape(functools.partial(learning.begin, optimizer=self.optimizer), params), frozen

    def begin(self, places: State, frozen_places: Flat) -> tuple[State, Flat]:
        """Return the state before the first step and the frozen weights, where they are wanted."""
        params, frozen = self._parted(self._placed({**places.params, **frozen_places}))
        start = functools.partial(learning.begin, optimizer=self.optimizer)
        return jax.jit(start, out_shardings=places, donate_argnums=0)(params), frozen

    def frozen(self, places: Flat) -> Flat:
        """Return the frozen weights alone."""
        return self._placed(places) if places else {}

    def whole(self, params: Flat) -> tree.Params:
        """Return the whole tree with these trained weights, on the host; frozen ones are what they were at first."""
        missing = [path for path in tree.names_and_shapes(self.config) if path not in params]
        if not missing:
            return tree.unflatten(params)
        loaded = self._loaded()
        drawn = jax.jit(self._drawing([path for path in missing if path not in loaded], jnp.float32))()
        return tree.unflatten({**loaded, **hosts.to_host(drawn), **params})

    def objective(self, params: Flat, frozen: Flat, key: jax.Array, batch: Batch) -> jax.Array:
        """Return the loss with labels dropped."""
        drop_key, loss_key = jax.random.split(key)
        dropped = jax.random.uniform(drop_key, (len(batch.weight), 1)) < self.recipe.label_dropout
        tokens = jnp.where(dropped, batch.bare_tokens, batch.tokens)
        mask = jnp.where(dropped, batch.bare_mask, batch.mask)
        return self._loss(params, frozen, loss_key, batch._replace(tokens=tokens, mask=mask))

    def measure(self, frozen: Flat, batch: Batch, mesh: Mesh) -> Callable[[Flat], jax.Array]:
        """Return the compiled loss on held-out rows, spread over the devices as those of a step are."""
        placed = hosts.put(batch, sharding.batch_sharding(mesh))

        @jax.jit
        def measured(params: Flat, frozen: Flat, batch: Batch) -> jax.Array:
            return self._loss(params, frozen, jax.random.key(EVAL_KEY), batch)

        return lambda params: measured(params, frozen, placed)

    def _loss(self, params: Flat, frozen: Flat, key: jax.Array, batch: Batch) -> jax.Array:
        whole = tree.unflatten({**params, **frozen})
        inputs = as_inputs(batch.images, batch.tokens, batch.mask)
        velocity = functools.partial(network.velocity, whole, self.config, inputs)
        return flow_loss(velocity, key, batch.actions, batch.real, batch.weight, real_dims=self.real_dims)

    def _placed(self, places: Flat) -> Flat:
        """Return the first values of some weights where ``places`` wants them, in the types they are kept in."""
        loaded = self._loaded()
        given = {
            path: hosts.put(loaded[path].astype(self._dtype(path)), place)
            for path, place in places.items()
            if path in loaded
        }
        drawn = {path: place for path, place in places.items() if path not in loaded}
        return {**given, **jax.jit(self._drawing(list(drawn)), out_shardings=drawn)()}

    def _drawing(self, paths: list[str], dtype: Any = None) -> Callable[[], Flat]:
        """Return a function that draws some weights, in the types they are kept in or in ``dtype``."""

        def draw() -> Flat:
            fresh = tree.flatten(network.init(learning.weights_key(self.recipe.seed), self.config))
            return {path: fresh[path].astype(dtype or self._dtype(path)) for path in paths}

        return draw

    def _loaded(self) -> Flat:
        """Return the recipe's weights on the host, float32; low-rank updates may be missing, all of them or none.

        Raises:
            UsageError: If nothing lies at their address.
            DataError: If they are other weights than these.
        """
        uri, digest = self.recipe.weights, self.recipe.weights_sha256
        if not uri:
            return {}
        found = weights.load_params(uri, self.config, sha256=digest, may_lack_updates=True)
        return {path: np.asarray(leaf, np.float32) for path, leaf in tree.flatten(found).items()}

    def _dtype(self, path: str) -> Any:
        return jnp.dtype(self.config.dtype) if path not in self.trained and path.endswith(CAST) else jnp.float32

    def _parted(self, flat: Flat) -> tuple[Flat, Flat]:
        trained = {path: leaf for path, leaf in flat.items() if path in self.trained}
        return trained, {path: leaf for path, leaf in flat.items() if path not in self.trained}
