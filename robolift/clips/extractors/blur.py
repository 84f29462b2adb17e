"""Sharpness: blur = Var(L), L the Laplacian of the grey picture, mean over frames; the higher, the sharper.

Source: Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy", ICPR 2000, as OpenCV has it (3 x 3 kernel
0 1 0, 1 -4 1, 0 1 0, borders mirrored, 64-bit floats). It depends on the pictures' size.
"""

from __future__ import annotations

import cv2
import numpy as np

from robolift.clips.extractor import Clip, Findings, Frame, Measurement, Tools

VERSION = 1
SCALARS = ("blur",)
TRACKS = ()


def sharpness(grey: np.ndarray) -> float:
    """Return the variance of the Laplacian of a (H, W) uint8 picture, in squared grey levels."""
    return float(np.asarray(cv2.Laplacian(grey, cv2.CV_64F)).var())


class _Blur(Measurement):
    def __init__(self) -> None:
        self._found: list[float] = []

    def see(self, frame: Frame) -> None:
        self._found.append(sharpness(frame.grey))

    def finish(self) -> Findings:
        return Findings(scalars={"blur": float(np.mean(self._found))})


def start(_clip: Clip, _tools: Tools) -> Measurement:
    """Begin with a clip."""
    return _Blur()
