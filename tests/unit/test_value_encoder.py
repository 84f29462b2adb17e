from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from robolift.value_model.backbones.encoder import ImageEncoder, soft_argmax
from robolift.value_model.presets import EncoderConfig, tiny


def test_soft_argmax_points_at_the_peak_and_reports_its_height():
    maps = torch.zeros(1, 2, 5, 9)
    maps[0, 0, 0, 8] = 60.0  # top right
    maps[0, 1, 4, 2] = 80.0  # bottom, a quarter from the left
    assert soft_argmax(maps, torch.zeros(2))[0].tolist() == pytest.approx([1, -0.5, -1, 1, 60, 80], abs=1e-4)


def test_soft_argmax_of_a_flat_map_is_the_middle():
    assert soft_argmax(torch.full((1, 1, 3, 4), 2.5), torch.zeros(1))[0].tolist() == pytest.approx(
        [0, 0, 2.5], abs=1e-6
    )


def test_temperature_sharpens():
    maps = torch.tensor([[[[0.0, 1.0]]]])
    weight = 1 / (1 + math.exp(-3))
    found = soft_argmax(maps, torch.tensor([math.log(3.0)]))[0]
    assert found.tolist() == pytest.approx([2 * weight - 1, -1.0, weight], abs=1e-6)


def reference(encoder: ImageEncoder, image: np.ndarray) -> np.ndarray:
    """The contract, pixel by pixel: what the policy's JAX encoder has to equal too."""
    weights = {name: value.detach().numpy().astype(np.float64) for name, value in encoder.state_dict().items()}
    maps = (image / 255 * 2 - 1).transpose(2, 0, 1)
    depth = len(encoder.config.channels)
    for j, (kernel, stride) in enumerate(zip(encoder.config.kernels, encoder.config.strides, strict=True)):
        padded = np.pad(maps, ((0, 0), (kernel // 2,) * 2, (kernel // 2,) * 2))
        size = [(padded.shape[a] - kernel) // stride + 1 for a in (1, 2)]
        out = np.empty((len(weights[f"conv{j}.bias"]), *size))
        for y in range(size[0]):
            for x in range(size[1]):
                window = padded[:, y * stride : y * stride + kernel, x * stride : x * stride + kernel]
                out[:, y, x] = (weights[f"conv{j}.weight"] * window).sum((1, 2, 3)) + weights[f"conv{j}.bias"]
        maps = np.maximum(out, 0) if j < depth - 1 else out
    logits = np.exp(weights["log_temperature"])[:, None, None] * maps
    attention = np.exp(logits - logits.max((1, 2), keepdims=True))
    attention /= attention.sum((1, 2), keepdims=True)
    x = (attention * np.linspace(-1, 1, maps.shape[2])).sum((1, 2))
    y = (attention * np.linspace(-1, 1, maps.shape[1])[:, None]).sum((1, 2))
    return np.concatenate([x, y, (attention * maps).sum((1, 2))])


def test_the_encoder_keeps_its_contract():
    torch.manual_seed(0)
    encoder = ImageEncoder(EncoderConfig(channels=(4, 5, 3), kernels=(5, 3, 3), strides=(2, 2, 1)))
    with torch.no_grad():
        encoder.log_temperature.copy_(torch.tensor([0.0, 1.5, 3.0]))
    images = np.random.default_rng(0).integers(0, 256, (2, 13, 18, 3), dtype=np.uint8)
    found = encoder(torch.from_numpy(images)).detach().numpy()
    assert found.dtype == np.float32
    expected = np.stack([reference(encoder, image) for image in images])
    assert np.abs(found - expected).max() < 2e-6


def test_names_and_sizes_of_the_tiny_encoder():
    encoder = ImageEncoder(tiny().encoder)
    shapes = {name: tuple(value.shape) for name, value in encoder.state_dict().items()}
    assert shapes == {
        "log_temperature": (32,),
        "conv0.weight": (16, 3, 5, 5),
        "conv0.bias": (16,),
        "conv1.weight": (32, 16, 3, 3),
        "conv1.bias": (32,),
        "conv2.weight": (32, 32, 3, 3),
        "conv2.bias": (32,),
        "conv3.weight": (32, 32, 3, 3),
        "conv3.bias": (32,),
    }
    assert encoder(torch.zeros(1, 96, 96, 3, dtype=torch.uint8)).shape == (1, 96)


def test_gain_brightens_and_saturates():
    encoder = ImageEncoder(EncoderConfig(channels=(2,), kernels=(1,), strides=(1,)))
    images = torch.tensor([[[[100, 100, 100], [250, 250, 250]]]], dtype=torch.uint8)
    brighter = torch.tensor([[[[120, 120, 120], [255, 255, 255]]]], dtype=torch.uint8)
    assert torch.allclose(encoder(images, torch.tensor([1.2])), encoder(brighter), atol=1e-6)
    assert torch.allclose(encoder(images, torch.tensor([1.0])), encoder(images), atol=1e-6)
