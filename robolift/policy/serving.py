"""A trained policy that acts: observations and prompts in, action chunks in the data's units out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from robolift import storage
from robolift.errors import DataError, UsageError
from robolift.labeling.prompts import PromptTable
from robolift.policy.checkpoint import SPEC_FILE, TaughtSpec
from robolift.policy.pi05.config import PRESETS as PI05_PRESETS


class Network(Protocol):
    """What a policy asks of its network."""

    @property
    def cameras(self) -> tuple[str, ...]:
        """Image keys an observation must have."""

    @property
    def image_size(self) -> tuple[int, int] | None:
        """(height, width) that each image must have, None for any."""

    @property
    def rows(self) -> int:
        """Rows of every compiled call.

        One shape only: nothing is compiled again when a batch shrinks, and a row's actions do not depend on who else
        is in the batch, which they would at other sizes, in the last bit.
        """

    @property
    def noise_shape(self) -> tuple[int, int]:
        """Shape of what a flow starts from, for a row."""

    @property
    def draws_noise(self) -> bool:
        """Whether there is a flow."""

    def inputs(
        self, images: Sequence[np.ndarray], state: np.ndarray, prompt: np.ndarray, bare: np.ndarray
    ) -> list[np.ndarray]:
        """Return what is computed from, arrays of B rows each.

        Args:
            images: One (B, H, W, 3) uint8 array a camera.
            state: (B, S) float32, in the data's units.
            prompt: (B,) rows of the prompt table.
            bare: (B,) rows of the bare prompts.
        """

    def act(self, inputs: Sequence[np.ndarray], noise: np.ndarray, guidance: float) -> np.ndarray:
        """Return (rows, H, A) normalised actions for exactly ``rows`` rows."""


class Policy:
    """A policy loaded from its folder; knows nothing of the dataset or the value model it came from.

    Attributes:
        spec: Everything about it besides the weights.
        cameras: Image keys an observation must have.
        image_size: (height, width) of each image, None without cameras or for any size.
        state_keys: State keys an observation must have.
        action_horizon: Actions of a chunk.
        execute: Actions of a chunk to carry out before asking again.
        action_dim: Length of an action.
        prompts: The prompts it was trained on; no other may be asked for.
    """

    def __init__(self, spec: TaughtSpec, network: Network) -> None:
        self.spec = spec
        self.cameras = network.cameras
        self.image_size = network.image_size
        self.state_keys = spec.state_keys
        self.action_horizon = spec.action_horizon
        self.execute = spec.execute
        self.action_dim = len(spec.action.offset)
        self.prompts = PromptTable(tuple(spec.prompts[row] for row in spec.trained_prompts))
        self._network = network
        self._bare = np.array(spec.bare_prompts, np.int32)

    @classmethod
    def load(cls, uri: str) -> Policy:
        """Load the output folder of ``train_policy`` from any store.

        Raises:
            DataError: If a file is missing or damaged.
        """
        document = storage.read_json(storage.join(uri, SPEC_FILE))
        preset = document.get("preset") if isinstance(document, dict) else None
        # One network's libraries are no business of the other's: those of pi0.5 take seconds to import.
        if preset in PI05_PRESETS:
            from robolift.policy.pi05 import acting  # noqa: PLC0415

            return cls(*acting.load(uri))
        from robolift.policy import chunk_network  # noqa: PLC0415

        return cls(*chunk_network.load(uri))

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
        bare = rows if guidance == 1 else self._bare[rows]
        arrays = [*self._network.inputs(images, state, rows, bare), self._noise(seed, len(prompts))]
        size = self._network.rows
        parts = [
            self._act_rows([array[start : start + size] for array in arrays], guidance)
            for start in range(0, len(prompts), size)
        ]
        empty = np.zeros((0, self.action_horizon, self.action_dim), np.float32)
        return self.spec.action.invert(np.concatenate([empty, *parts]))

    def _check(self, observation: Mapping[str, np.ndarray], count: int) -> tuple[list[np.ndarray], np.ndarray]:
        """Return the images by camera and the (B, S) state, checked."""
        shapes: dict[str, tuple[int | None, ...]] = dict.fromkeys(
            self.cameras, (count, *(self.image_size or (None, None)), 3)
        )
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
            if not _fits(array.shape, shape) or (array.dtype == np.uint8) != (kind == "uint8"):
                raise DataError(
                    f"{key} is {array.dtype} {array.shape}",
                    where="observation",
                    expected=f"{kind} {str(shape).replace('None', 'any')}",
                )
        states = [np.asarray(observation[key], np.float32) for key in self.state_keys]
        state = np.concatenate([np.zeros((count, 0), np.float32), *states], axis=1)
        if not np.isfinite(state).all():
            raise DataError("a state is not finite", where="observation", expected="numbers")
        return [np.asarray(observation[key]) for key in self.cameras], state

    def _noise(self, seed: int | Sequence[int], count: int) -> np.ndarray:
        """Return (B, H, A) standard normal numbers."""
        shape = self._network.noise_shape
        if not self._network.draws_noise:
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
        """Act for at most the network's rows; missing rows are zeros and thrown away."""
        count, size = len(arrays[-1]), self._network.rows
        *inputs, noise = [np.concatenate([a, np.zeros((size - count, *a.shape[1:]), a.dtype)]) for a in arrays]
        return self._network.act(inputs, noise, guidance)[:count]


def _fits(found: tuple[int, ...], expected: tuple[int | None, ...]) -> bool:
    return len(found) == len(expected) and all(e in (None, f) for f, e in zip(found, expected, strict=True))
