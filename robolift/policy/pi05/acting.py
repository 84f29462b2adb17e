"""pi0.5 as a policy acts through it: pictures of any size and a prompt with the state in, normalised actions out."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from robolift.data.letterbox import letterbox
from robolift.labeling.prompt_formatter import PromptFormatter
from robolift.policy.pi05 import network, policy_files
from robolift.policy.pi05.batches import as_inputs, tokenize
from robolift.policy.pi05.policy_files import Pi05Spec
from robolift.policy.pi05.tree import Params


class Pi05Network:
    """A :class:`robolift.policy.serving.Network`."""

    rows = 1
    """A robot asks for one chunk at a time, and one more row costs as much as the first."""
    image_size = None
    draws_noise = True

    def __init__(self, spec: Pi05Spec, params: Params, formatter: PromptFormatter) -> None:
        self.cameras = spec.cameras
        self.noise_shape = (spec.action_horizon, spec.config.action_dim)
        self._spec = spec
        self._params = jax.tree.map(jnp.asarray, params)
        self._formatter = formatter

    def inputs(
        self, images: Sequence[np.ndarray], state: np.ndarray, prompt: np.ndarray, bare: np.ndarray
    ) -> list[np.ndarray]:
        """Return squares (B, K, S, S, 3), tokens and mask (B, L) of the prompts, and the same of the bare ones."""
        side = self._spec.config.vision.image_side
        squares = np.stack([letterbox(pictures, (side, side)) for pictures in images], axis=1)
        states = self._spec.state.apply(state)
        asked = self._tokens(prompt, states)
        return [squares, *asked, *(asked if bare is prompt else self._tokens(bare, states))]

    def _tokens(self, rows: np.ndarray, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return tokenize(self._formatter, [self._spec.prompts[row] for row in rows], states)

    def act(self, inputs: Sequence[np.ndarray], noise: np.ndarray, guidance: float) -> np.ndarray:
        """Return (rows, H, A) normalised actions, the real dimensions."""
        return np.asarray(self._compiled(guidance != 1)(self._params, *inputs, noise, np.float32(guidance)))

    @functools.cache  # noqa: B019  (a policy lives as long as its process)
    def _compiled(self, guided: bool) -> jax.stages.Wrapped:  # noqa: FBT001
        config, real_dims = self._spec.config, len(self._spec.action.offset)

        @jax.jit
        def act(
            params: Params,
            images: jax.Array,
            tokens: jax.Array,
            mask: jax.Array,
            bare_tokens: jax.Array,
            bare_mask: jax.Array,
            noise: jax.Array,
            strength: jax.Array,
        ) -> jax.Array:
            return network.sample(
                params,
                config,
                as_inputs(images, tokens, mask),
                noise,
                steps=config.sampling_steps,
                guidance=strength,
                unconditional=as_inputs(images, bare_tokens, bare_mask) if guided else None,
                real_dims=real_dims,
            )[..., :real_dims]

        return act


def load(uri: str) -> tuple[Pi05Spec, Pi05Network]:
    """Load the output folder of ``train_policy``.

    Raises:
        DataError: If a file is missing or damaged.
    """
    spec, params, formatter = policy_files.load(uri)
    return spec, Pi05Network(spec, params, formatter)
