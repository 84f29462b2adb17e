"""The network of :mod:`robolift.policy.model`, with the image encoder before it, as a policy acts through it."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from robolift.policy import checkpoint, encoder, sampling
from robolift.policy.checkpoint import PolicySpec
from robolift.policy.model import Params

ROWS = 8


class ChunkNetwork:
    """A :class:`robolift.policy.serving.Network`."""

    rows = ROWS

    def __init__(self, spec: PolicySpec, params: Params, encoder_weights: encoder.Weights) -> None:
        self.cameras = spec.cameras
        self.image_size = spec.image_size
        self.noise_shape = (spec.action_horizon, spec.shape.action_dim)
        self.draws_noise = spec.objective == "flow"
        self._spec = spec
        self._params = params
        self._encoder_weights = encoder_weights

    def inputs(
        self, images: Sequence[np.ndarray], state: np.ndarray, prompt: np.ndarray, bare: np.ndarray
    ) -> list[np.ndarray]:
        """Return the arrays as they are: all of this network's work is compiled."""
        return [*images, state, prompt, bare]

    def act(self, inputs: Sequence[np.ndarray], noise: np.ndarray, guidance: float) -> np.ndarray:
        """Return (ROWS, H, A) normalised actions."""
        *images, state, prompt, bare = inputs
        compiled = self._compiled(guidance != 1)
        weights = self._params, self._encoder_weights
        return np.asarray(compiled(*weights, images, state, prompt, bare, noise, np.float32(guidance)))

    @functools.cache  # noqa: B019  (a policy lives as long as its process)
    def _compiled(self, guided: bool) -> jax.stages.Wrapped:  # noqa: FBT001
        spec = self._spec

        @jax.jit
        def act(
            params: Params,
            weights: encoder.Weights,
            images: list[jax.Array],
            state: jax.Array,
            prompt: jax.Array,
            bare: jax.Array,
            noise: jax.Array,
            strength: jax.Array,
        ) -> jax.Array:
            seen = [state] if spec.encoder is None else [state, encoder.encode(weights, images, spec.encoder)]
            observation = (jnp.concatenate(seen, axis=-1) - spec.observation.offset) / spec.observation.scale
            return sampling.sample(
                params,
                spec.shape,
                observation,
                prompt,
                noise,
                num_steps=spec.architecture.sampling_steps,
                bare=bare if guided else None,
                strength=strength,
            )

        return act


def load(uri: str) -> tuple[PolicySpec, ChunkNetwork]:
    """Load the output folder of ``train_policy``.

    Raises:
        DataError: If a file is missing or damaged.
    """
    spec, params, weights = checkpoint.load_policy(uri)
    return spec, ChunkNetwork(spec, params, weights)
