"""A trained policy as something that is served: one observation in, one chunk of actions out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from robolift.data.scaling import scale_images
from robolift.errors import DataError, RoboliftError
from robolift.manifest import Manifest
from robolift.policy.server.prompt_rule import PromptLabel, PromptRule
from robolift.policy.serving import Policy

PROMPT, SEED = "prompt", "seed"
ANY_SIZE = (32, 32)
"""Of the pictures that warm a policy up which takes them at any size."""
MAX_SIDE = 8192
"""Of a picture, pixels: more than cameras have, less than what FFmpeg refuses to scale."""


class ServedPolicy:
    """Answers observations with chunks of actions in the data's units.

    Args:
        policy: The policy.
        checkpoint: Digest of the output it was loaded from.
        label: What to ask it for.
        guidance: Strength of classifier-free guidance; 1 is the conditional policy.

    Raises:
        UsageError: If the policy was not trained under the label.
    """

    def __init__(self, policy: Policy, *, checkpoint: str, label: PromptLabel, guidance: float) -> None:
        spec = policy.spec
        bare = [spec.prompts[row] for row in sorted(set(spec.bare_prompts))]
        self._policy = policy
        self._rule = PromptRule.of(label, tasks=bare, trained=policy.prompts.prompts)
        self._guidance = guidance
        self._dims = dict(zip(policy.state_keys, spec.state_dims, strict=True))
        self._metadata = {
            "preset": spec.preset,
            "checkpoint": checkpoint,
            "cameras": list(policy.cameras),
            "image_size": list(policy.image_size) if policy.image_size else None,
            "states": dict(self._dims),
            "action_dim": policy.action_dim,
            "action_horizon": policy.action_horizon,
            "execute": policy.execute,
            "fps": spec.fps,
            "prompts": dict(self._rule.prompts),
            "prompt_label": label.value,
            "guidance": guidance,
        }

    @classmethod
    def load(cls, manifest: Manifest, *, label: PromptLabel, guidance: float) -> ServedPolicy:
        """Load the output of ``train_policy``.

        Raises:
            DataError: If a file is missing or damaged.
            UsageError: If the policy was not trained under the label.
        """
        return cls(Policy.load(manifest.uri), checkpoint=manifest.digest, label=label, guidance=guidance)

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What a client has to know; see docs/serving.md."""
        return self._metadata

    def warm_up(self) -> None:
        """Act once under every prompt, so that no client waits for a compiler.

        Raises:
            UsageError: If guidance needs the bare prompt of one of them, and that was not trained.
        """
        prompts = self._rule.served
        size = self._policy.image_size or ANY_SIZE
        nothing = {key: np.zeros((len(prompts), *size, 3), np.uint8) for key in self._policy.cameras}
        nothing |= {key: np.zeros((len(prompts), dim), np.float32) for key, dim in self._dims.items()}
        self._policy.act(nothing, prompts=prompts, seed=0, guidance=self._guidance)

    def infer(self, observation: Mapping[Any, Any]) -> dict[str, Any]:
        """Return ``actions``, (action_horizon, action_dim) float32.

        The noise of a flow policy is drawn from the observation's ``seed`` or else from the observation itself, so the
        same observation has the same answer, whoever asks and whatever was asked before.

        Raises:
            DataError: If the observation is not what the policy was trained on.
            RoboliftError: If the policy answers with what is not a number; no robot should get that.
        """
        self._check_keys(observation)
        prompt = self._rule.resolve(observation[PROMPT])
        seen = {key: self._image(key, observation[key]) for key in self._policy.cameras}
        seen |= {key: _state(key, observation[key], dim) for key, dim in self._dims.items()}
        seed = _seed(observation[SEED]) if SEED in observation else _seed_of(prompt, seen)
        batch = {key: array[None] for key, array in seen.items()}
        (actions,) = self._policy.act(batch, prompts=[prompt], seed=[seed], guidance=self._guidance)
        if not np.isfinite(actions).all():
            raise RoboliftError("the policy's actions are not finite: its training diverged, or the state is far out")
        return {"actions": actions}

    def _check_keys(self, observation: Mapping[Any, Any]) -> None:
        wanted = [*self._policy.cameras, *self._dims, PROMPT]
        if missing := [key for key in wanted if key not in observation]:
            raise DataError(
                f"the observation has no {', '.join(missing)}",
                where=f"keys: {', '.join(sorted(map(str, observation))) or 'none'}"[:500],
                expected=", ".join(wanted),
                mend="name images and states as the dataset does that the policy was trained on",
            )

    def _image(self, key: str, image: Any) -> np.ndarray:
        """Return (H, W, 3) at the policy's size."""
        fits = isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3
        if not fits or image.shape[2] != 3 or not image.size or max(image.shape) > MAX_SIDE:
            raise DataError(
                f"{key} is {_kind(image)}",
                where="observation",
                expected=f"uint8 (height, width, 3), RGB; any size up to {MAX_SIDE}, it is scaled here",
            )
        scaled: np.ndarray = scale_images(image[None], self._policy.image_size)[0]
        return scaled


def _state(key: str, state: Any, dim: int) -> np.ndarray:
    """Return (dim,) float32."""
    try:
        array = np.asarray(state)
    except ValueError:  # lists within lists, of different lengths
        array = np.empty((0, 0), object)
    if array.dtype.kind not in "fiu" or array.shape != (dim,):
        raise DataError(f"{key} is {_kind(state)}", where="observation", expected=f"numbers ({dim},)")
    with np.errstate(over="ignore"):  # too large becomes infinite, which is refused
        array = array.astype(np.float32)
    if not np.isfinite(array).all():
        raise DataError(f"{key} is not finite", where="observation", expected="numbers")
    return array


def _kind(value: Any) -> str:
    return f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__


def _seed(seed: Any) -> int:
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise DataError(
            f"seed is {str(seed)[:50]} ({type(seed).__name__})", where="observation", expected="a number from 0 on"
        )
    return int(seed)


def _seed_of(prompt: str, seen: Mapping[str, np.ndarray]) -> int:
    digest = hashlib.sha256(prompt.encode())
    for array in seen.values():
        digest.update(array.tobytes())
    return int.from_bytes(digest.digest()[:8], "big")
