"""EfficientNet-Lite0 (Tan and Le 2019; Liu 2020: no squeeze-and-excite, ReLU6), 4.7 million parameters.

Widths, repeats, strides and the padding are those of the TensorFlow definition; module names are those under which its
weights are passed around in PyTorch, so a plain state dict fits.
"""

from __future__ import annotations

import pickle
from pathlib import Path

import cv2
import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import nn
from torch.nn import functional

from robolift.errors import DataError
from robolift.training.device import device_for, threads

SIDE = 224
MEAN, STD = np.array((0.485, 0.456, 0.406), np.float32), np.array((0.229, 0.224, 0.225), np.float32)
STEM, HEAD, CLASSES = 32, 1280, 1000
STAGES = (
    # repeats, kernel, stride, expansion, channels
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
BN_EPSILON = 1e-3


class _Conv(nn.Conv2d):
    """Convolution padded as TensorFlow's SAME: what is odd goes to the right and below."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, groups=groups, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        pads = []
        for size in (x.shape[3], x.shape[2]):  # the last dimension first
            pad = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            pads += [pad // 2, pad - pad // 2]
        return super().forward(functional.pad(x, pads))


class _Block(nn.Module):
    """Inverted bottleneck: expand, filter each channel, project; the input is added where the shape is the same."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inputs * expansion
        self._expands = expansion > 1
        if self._expands:
            self._expand_conv = _Conv(inputs, wide, 1)
            self._bn0 = nn.BatchNorm2d(wide, eps=BN_EPSILON)
        self._depthwise_conv = _Conv(wide, wide, kernel, stride=stride, groups=wide)
        self._bn1 = nn.BatchNorm2d(wide, eps=BN_EPSILON)
        self._project_conv = _Conv(wide, outputs, 1)
        self._bn2 = nn.BatchNorm2d(outputs, eps=BN_EPSILON)
        self._adds = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide = functional.relu6(self._bn0(self._expand_conv(x))) if self._expands else x
        wide = functional.relu6(self._bn1(self._depthwise_conv(wide)))
        out: torch.Tensor = self._bn2(self._project_conv(wide))
        return out + x if self._adds else out


class Network(nn.Module):
    """The network of (n, 3, 224, 224) normalised pictures."""

    def __init__(self) -> None:
        """Build it with arbitrary weights."""
        super().__init__()
        self._conv_stem = _Conv(3, STEM, 3, stride=2)
        self._bn0 = nn.BatchNorm2d(STEM, eps=BN_EPSILON)
        blocks, inputs = [], STEM
        for repeats, kernel, stride, expansion, outputs in STAGES:
            for repeat in range(repeats):
                first = repeat == 0
                blocks.append(_Block(inputs, outputs, kernel, stride=stride if first else 1, expansion=expansion))
                inputs = outputs
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = _Conv(inputs, HEAD, 1)
        self._bn1 = nn.BatchNorm2d(HEAD, eps=BN_EPSILON)
        self._fc = nn.Linear(HEAD, CLASSES)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Return (n, 1280): the head's output, its mean over the picture."""
        x = functional.relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        x = functional.relu6(self._bn1(self._conv_head(x)))
        return x.mean(dim=(2, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the (n, 1000) logits of ImageNet's classes."""
        logits: torch.Tensor = self._fc(self.features(x))
        return logits


class EfficientNetLite0:
    """Features of the last layer before the classifier, 1280 numbers, each at least 0."""

    kind = "efficientnet_lite0"
    width = HEAD

    def __init__(self, file: Path, *, digest: str, device: str, where: str) -> None:
        """Load the weights.

        Args:
            file: State dict, ``.safetensors`` or a ``.pth`` of tensors alone: no code in it is run.
            digest: Of the file.
            device: ``cpu`` or ``cuda``.
            where: What an error calls the file.

        Raises:
            UsageError: If there is no such device.
            DataError: If these aren't the weights of EfficientNet-Lite0.
        """
        self.digest = digest
        self._device = device_for(device)
        with torch.device("meta"):  # no numbers to be drawn for what is replaced at once
            network = Network()
        try:
            network.load_state_dict(_read(file), assign=True)
        except (RuntimeError, TypeError, EOFError, pickle.UnpicklingError, safetensors.SafetensorError) as error:
            raise DataError(
                f"not the weights of EfficientNet-Lite0: {str(error)[:500]}",
                where=where,
                expected="a state dict with 296 tensors, _conv_stem.weight to _fc.bias",
                mend="choose the file with those, or a folder with a CLIP",
            ) from error
        self.network = network.eval().float().to(self._device)

    def encode(self, images: np.ndarray) -> np.ndarray:
        """Return (n, 1280) float32 of (n, H, W, 3) uint8 RGB pictures."""
        # One thread: more would add floats in another order.
        with threads(1), torch.inference_mode():
            found = self.network.features(prepare(images).to(self._device))
        return np.asarray(found.cpu().numpy(), np.float32)


def prepare(images: np.ndarray) -> torch.Tensor:
    """Return (n, 3, 224, 224) float32 of (n, H, W, 3) uint8 RGB pictures: the whole picture, normalised."""
    sized = [cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for image in images]
    scaled = (np.stack(sized).astype(np.float32) / 255 - MEAN) / STD
    return torch.from_numpy(np.ascontiguousarray(scaled.transpose(0, 3, 1, 2)))


def _read(file: Path) -> dict[str, torch.Tensor]:
    if file.suffix == ".safetensors":
        return safetensors.torch.load_file(file)
    found: dict[str, torch.Tensor] = torch.load(file, map_location="cpu", weights_only=True)
    return found
