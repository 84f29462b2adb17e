"""A trained policy that acts: observations and prompts in, action chunks in the data's units out."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from robolift.errors import DataError, UsageError
from robolift.labeling.prompts import PromptTable
from robolift.policy import checkpoint, encoder, sampling
from robolift.policy.checkpoint import PolicySpec
from robolift.policy.model import Params

ROWS = 8
"""Rows of every compiled call. One shape only: nothing is compiled again when a batch shrinks, and a row's actions do
not depend on who else is in the batch, which they would at other sizes, in the last bit."""


class Policy:
    """A policy loaded from its folder; knows nothing of the dataset or the value model it came from.

    Attributes:
        spec: Everything about it besides the weights.
        cameras: Image keys an observation must have.
        image_size: (height, width) of each image, None without cameras.
        state_keys: State keys an observation must have.
        action_horizon: Actions of a chunk.
        execute: Actions of a chunk to carry out before asking again.
        action_dim: Length of an action.
        prompts: The prompts it was trained on; no other may be asked for.
    """

    def __init__(self, spec: PolicySpec, params: Params, encoder_weights: encoder.Weights) -> None:
        self.spec = spec
        self.cameras = spec.cameras
        self.image_size = spec.encoder.image_size if spec.encoder else None
        self.state_keys = spec.state_keys
        self.action_horizon = spec.action_horizon
        self.execute = spec.execute
        self.action_dim = spec.shape.action_dim
        self.prompts = PromptTable(tuple(spec.prompts[row] for row in spec.trained_prompts))
        self._params = params
        self._encoder_weights = encoder_weights
        self._bare = np.array(spec.bare_prompts, np.int32)

    @classmethod
    def load(cls, uri: str) -> Policy:
        """Load the output folder of ``train_policy`` from any store.

        Raises:
            DataError: If a file is missing or damaged.
        """
        return cls(*checkpoint.load_policy(uri))

    def act(
        self,
        observation: Mapping[str, np.ndarray],
        *,
        prompts: Sequence[str],
        seed: int | Sequence[int],
        guidance: float = 1.0,
    ) -> np.ndarray:
        """Return the next action chunks.

        Args:
            observation: uint8 (B, H, W, 3) by camera key, float (B, d) by state key; other keys are not looked at.
            prompts: One prompt a row, B.
            seed: Of the noise that a flow policy starts from: one number, and each row of the batch draws its own; or
                one number a row, and a row draws the same wherever in a batch it stands.
            guidance: Classifier-free guidance; 1 is the conditional policy, 0 the unconditional one.

        Returns:
            (B, action_horizon, action_dim) float32 in the data's units.

        Raises:
            DataError: If a camera or state is missing or has another shape or type.
            UsageError: If a prompt was not trained, the counts differ, or guidance needs the bare prompt and that was
                not trained.
        """
        images, state = self._check(observation, len(prompts))
        # ``prompts.index`` gives the position among the trained prompts, which is not the row of the whole table.
        rows = np.array([self.spec.trained_prompts[self.prompts.index(text)] for text in prompts], np.int32)
        if guidance != 1:
            for row in {int(self._bare[row]) for row in rows} - set(self.spec.trained_prompts):
                raise UsageError(
                    f"guidance is {guidance}, but the bare prompt {self.spec.prompts[row]!r} was not trained; "
                    "train with label_dropout above 0"
                )
        arrays = [*images, state, rows, self._bare[rows], self._noise(seed, len(prompts))]
        parts = [
            self._act_rows([array[start : start + ROWS] for array in arrays], guidance)
            for start in range(0, len(prompts), ROWS)
        ]
        empty = np.zeros((0, self.action_horizon, self.action_dim), np.float32)
        return self.spec.action.invert(np.concatenate([empty, *parts]))

    def _check(self, observation: Mapping[str, np.ndarray], count: int) -> tuple[list[np.ndarray], np.ndarray]:
        """Return the images by camera and the (B, S) state, checked."""
        shapes = dict.fromkeys(self.cameras, (count, *(self.image_size or ()), 3))
        shapes |= {key: (count, dim) for key, dim in zip(self.state_keys, self.spec.state_dims, strict=True)}
        for key, shape in shapes.items():
            if key not in observation:
                raise DataError(
                    f"the observation has no {key}",
                    where=f"keys: {', '.join(sorted(observation)) or 'none'}",
                    expected=", ".join(shapes),
                    mend="record or render it as the training data had it",
                )
            array = np.asarray(observation[key])
            kind = "uint8" if key in self.cameras else "float"
            if array.shape != shape or (array.dtype == np.uint8) != (kind == "uint8"):
                raise DataError(
                    f"{key} is {array.dtype} {array.shape}", where="observation", expected=f"{kind} {shape}"
                )
        states = [np.asarray(observation[key], np.float32) for key in self.state_keys]
        state = np.concatenate([np.zeros((count, 0), np.float32), *states], axis=1)
        if not np.isfinite(state).all():
            raise DataError("a state is not finite", where="observation", expected="numbers")
        return [np.asarray(observation[key]) for key in self.cameras], state

    def _noise(self, seed: int | Sequence[int], count: int) -> np.ndarray:
        """Return (B, H, A) standard normal numbers."""
        shape = (self.action_horizon, self.action_dim)
        if self.spec.objective == "regression":
            return np.zeros((count, *shape), np.float32)
        if isinstance(seed, (int, np.integer)):
            keys = [[int(seed), row] for row in range(count)]
        else:
            keys = [[int(own)] for own in seed]
        if len(keys) != count:
            raise UsageError(f"{len(keys)} seeds for {count} prompts")
        noise = [np.random.default_rng(key).standard_normal(shape, np.float32) for key in keys]
        return np.stack(noise) if noise else np.zeros((0, *shape), np.float32)

    def _act_rows(self, arrays: Sequence[np.ndarray], guidance: float) -> np.ndarray:
        """Act for at most ROWS rows; missing rows are zeros and thrown away."""
        count = len(arrays[-1])
        padded = [np.concatenate([a, np.zeros((ROWS - count, *a.shape[1:]), a.dtype)]) for a in arrays]
        *images, state, prompt, bare, noise = padded
        return np.asarray(
            self._compiled(guidance != 1)(
                self._params, self._encoder_weights, images, state, prompt, bare, noise, np.float32(guidance)
            )
        )[:count]

    @functools.cache  # noqa: B019  (a policy lives as long as its process)
    def _compiled(self, guided: bool) -> jax.stages.Wrapped:  # noqa: FBT001
        spec = self.spec

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
