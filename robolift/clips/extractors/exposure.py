"""Exposure: entropy H = - sum p_i log2 p_i of the grey histogram with 256 bins, in bits, mean over frames.

0 for a uniform picture, at most 8. Source: Shannon 1948; the prototype's measure of exposure.
"""

from __future__ import annotations

import numpy as np

from robolift.clips.extractor import Clip, Findings, Frame, Measurement, Tools

VERSION = 1
SCALARS = ("exposure",)
TRACKS = ()


def entropy_bits(grey: np.ndarray) -> float:
    """Return the entropy of the grey levels of a (H, W) uint8 picture, in bits."""
    count = np.bincount(grey.ravel(), minlength=256)
    share = count[count > 0] / grey.size
    return float(np.abs(-(share * np.log2(share)).sum()))  # abs: a uniform picture has 0, not -0


class _Exposure(Measurement):
    def __init__(self) -> None:
        self._found: list[float] = []

    def see(self, frame: Frame) -> None:
        self._found.append(entropy_bits(frame.grey))

    def finish(self) -> Findings:
        return Findings(scalars={"exposure": float(np.mean(self._found))})


def start(_clip: Clip, _tools: Tools) -> Measurement:
    """Begin with a clip."""
    return _Exposure()
