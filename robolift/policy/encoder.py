"""The value model's image encoder, computed in JAX from the weights PyTorch trained.

The same function as :mod:`robolift.value_model.backbones.encoder`; a test holds the two together.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from robolift.errors import DataError
from robolift.policy import xla  # noqa: F401

PREFIX = "encoder."
Weights = list[dict[str, jax.Array]]
"""One entry a camera, names as in the checkpoint without the camera's prefix."""


@dataclass(frozen=True, kw_only=True)
class EncoderSpec:
    """What is needed to encode images besides the weights.

    Attributes:
        cameras: Dataset keys of the cameras, in the order of the weights and of the features.
        image_size: (height, width) the encoder was trained at, pixels.
        channels: Output channels of each convolution.
        kernels: Kernel sizes; the padding is half of it, rounded down.
        strides: Strides.
    """

    cameras: tuple[str, ...]
    image_size: tuple[int, int]
    channels: tuple[int, ...]
    kernels: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def num_features(self) -> int:
        """Length of the features of all cameras."""
        return 3 * self.channels[-1] * len(self.cameras)

    def to_dict(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return {key: list(value) for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> EncoderSpec:
        """Return what :meth:`to_dict` wrote."""
        height, width = document["image_size"]
        shape = {name: tuple(document[name]) for name in ("channels", "kernels", "strides")}
        return cls(cameras=tuple(document["cameras"]), image_size=(height, width), **shape)


def pick_weights(tensors: Mapping[str, np.ndarray], spec: EncoderSpec, *, where: str) -> dict[str, np.ndarray]:
    """Return the encoder's tensors of a checkpoint, float32, under their checkpoint names.

    Raises:
        DataError: If one is missing or has another shape than ``spec`` says.
    """
    picked = {name: np.asarray(t, np.float32) for name, t in tensors.items() if re.match(r"encoder\.\d+\.", name)}
    expected = _shapes(spec)
    for name, shape in expected.items():
        found = picked[name].shape if name in picked else None
        if found != shape:
            raise DataError(
                f"encoder weight {name} is {found or 'missing'}",
                where=where,
                expected=f"{shape} for cameras {', '.join(spec.cameras)}",
                mend="give the checkpoint that train_value wrote",
            )
    return {name: picked[name] for name in sorted(expected)}


def _shapes(spec: EncoderSpec) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for i in range(len(spec.cameras)):
        previous = 3
        for j, (channels, kernel) in enumerate(zip(spec.channels, spec.kernels, strict=True)):
            shapes[f"{PREFIX}{i}.conv{j}.weight"] = (channels, previous, kernel, kernel)
            shapes[f"{PREFIX}{i}.conv{j}.bias"] = (channels,)
            previous = channels
        shapes[f"{PREFIX}{i}.log_temperature"] = (previous,)
    return shapes


def by_camera(tensors: Mapping[str, np.ndarray], spec: EncoderSpec) -> Weights:
    """Return the tensors of :func:`pick_weights` grouped by camera."""
    groups = []
    for i in range(len(spec.cameras)):
        prefix = f"{PREFIX}{i}."
        groups.append({n.removeprefix(prefix): jnp.asarray(t) for n, t in tensors.items() if n.startswith(prefix)})
    return groups


def encode(weights: Weights, images: Sequence[jax.Array], spec: EncoderSpec) -> jax.Array:
    """Return the features of all cameras side by side.

    Args:
        weights: From :func:`by_camera`.
        images: One (B, H, W, 3) uint8 array a camera, in the order of ``spec.cameras``.
        spec: The encoder.

    Returns:
        (B, F) float32.
    """
    pairs = zip(weights, images, strict=True)
    return jnp.concatenate([_encode_camera(own, pixels, spec) for own, pixels in pairs], axis=-1)


def _encode_camera(weights: Mapping[str, jax.Array], images: jax.Array, spec: EncoderSpec) -> jax.Array:
    x = images.astype(jnp.float32) / 255 * 2 - 1
    for j, (kernel, stride) in enumerate(zip(spec.kernels, spec.strides, strict=True)):
        x = jax.lax.conv_general_dilated(
            x,
            weights[f"conv{j}.weight"],
            window_strides=(stride, stride),
            padding=[(kernel // 2, kernel // 2)] * 2,
            dimension_numbers=("NHWC", "OIHW", "NHWC"),
        )
        x = x + weights[f"conv{j}.bias"]
        if j < len(spec.channels) - 1:
            x = jax.nn.relu(x)
    return _soft_argmax(x, weights["log_temperature"])


def _soft_argmax(maps: jax.Array, log_temperature: jax.Array) -> jax.Array:
    """Return (B, 3C): mean x, mean y and mean activation of (B, h, w, C) maps under softmax(exp(temperature) * map)."""
    _, height, width, _ = maps.shape
    attention = jax.nn.softmax(maps * jnp.exp(log_temperature), axis=(1, 2))
    x = jnp.einsum("bhwc,w->bc", attention, jnp.linspace(-1.0, 1.0, width))
    y = jnp.einsum("bhwc,h->bc", attention, jnp.linspace(-1.0, 1.0, height))
    return jnp.concatenate([x, y, (attention * maps).sum((1, 2))], axis=-1)
