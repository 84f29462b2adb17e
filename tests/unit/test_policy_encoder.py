"""The encoder in JAX against the value model's in PyTorch, and what it refuses."""

import jax
import numpy as np
import pytest
import torch

from robolift.errors import DataError
from robolift.policy import encoder
from robolift.policy.encoder import EncoderSpec
from robolift.value_model.backbones.encoder import ImageEncoder
from robolift.value_model.presets import EncoderConfig


def _pair(channels=(16, 32, 32, 32), kernels=(5, 3, 3, 3), strides=(2, 2, 1, 1), size=(96, 96), cameras=2):
    config = EncoderConfig(channels=channels, kernels=kernels, strides=strides)
    torch.manual_seed(0)
    modules = torch.nn.ModuleList(ImageEncoder(config) for _ in range(cameras))
    with torch.no_grad():
        for module in modules:  # temperatures as after training: the attention is far from even
            module.log_temperature.uniform_(0.0, 3.0)
    names = tuple(f"observation.images.{k}" for k in range(cameras))
    spec = EncoderSpec(cameras=names, image_size=size, channels=channels, kernels=kernels, strides=strides)
    tensors = {f"encoder.{name}": t.detach().numpy() for name, t in modules.state_dict().items()}
    return modules, spec, tensors


@pytest.mark.parametrize(
    ("channels", "kernels", "strides", "size"),
    [
        ((16, 32, 32, 32), (5, 3, 3, 3), (2, 2, 1, 1), (96, 96)),
        ((4, 8), (3, 5), (2, 1), (33, 48)),
        ((6,), (1,), (1,), (7, 9)),
    ],
)
def test_features_equal_those_of_pytorch(channels, kernels, strides, size):
    modules, spec, tensors = _pair(channels, kernels, strides, size)
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (3, *size, 3), dtype=np.uint8) for _ in spec.cameras]
    with torch.no_grad():
        expected = torch.cat([m(torch.from_numpy(i)) for m, i in zip(modules, images, strict=True)], -1).numpy()
    weights = encoder.by_camera(encoder.pick_weights(tensors, spec, where="here"), spec)
    features = np.asarray(jax.jit(lambda w, i: encoder.encode(w, i, spec))(weights, images))
    assert features.shape == (3, spec.num_features) == expected.shape
    assert np.abs(features - expected).max() <= 1e-5
    assert np.abs(expected[0] - expected[1]).max() > 1e-3  # the images do matter


def test_weights_of_the_trunk_are_left_behind_and_missing_ones_named():
    _, spec, tensors = _pair()
    picked = encoder.pick_weights({**tensors, "trunk.0.weight": np.zeros(3)}, spec, where="here")
    assert picked.keys() == tensors.keys()
    with pytest.raises(DataError, match=r"encoder.1.conv2.bias is missing"):
        encoder.pick_weights({n: t for n, t in tensors.items() if n != "encoder.1.conv2.bias"}, spec, where="here")
    with pytest.raises(DataError, match=r"encoder.0.log_temperature is \(3,\)"):
        encoder.pick_weights({**tensors, "encoder.0.log_temperature": np.zeros(3)}, spec, where="here")


def test_spec_survives_json():
    _, spec, _ = _pair()
    assert EncoderSpec.from_dict(spec.to_dict()) == spec
    assert spec.num_features == 192
