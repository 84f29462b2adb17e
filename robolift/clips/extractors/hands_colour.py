"""Hands by their colour: connected regions of skin colour in a frame. Quick, needs no model.

A pixel is skin where its chromaticity (r, g) = (R, G) / (R + G + B) lies in a range and it isn't dark, R + G + B >= 45;
a region is a hand from 0.3 % of the picture on. Chromaticity leaves out how strongly a scene is lit: Störring et al.,
"Skin colour detection under changing lighting conditions", 1999. The range is that of the simulated videos in
their worst light, where nothing else has it; wood and faces have it too, so real videos want `hands`.
"""

from __future__ import annotations

import cv2
import numpy as np

from robolift.clips.extractor import Clip, Findings, Frame, Measurement, Tools
from robolift.clips.hand_path import SCALARS, TRACKS, HandPath

__all__ = ["SCALARS", "TRACKS", "VERSION", "start"]

VERSION = 1
RED, GREEN = (0.37, 0.48), (0.28, 0.355)
MIN_SUM = 45
MIN_SHARE = 0.003
CONNECTIVITY = 8


def skin(rgb: np.ndarray) -> np.ndarray:
    """Return the (H, W) bool mask of skin in a (H, W, 3) uint8 RGB picture."""
    colour = rgb.astype(np.float32)
    total = colour.sum(axis=2)
    red, green = (colour[..., channel] / np.maximum(total, 1) for channel in (0, 1))
    in_range = (red >= RED[0]) & (red <= RED[1]) & (green >= GREEN[0]) & (green <= GREEN[1])
    return np.asarray(in_range & (total >= MIN_SUM))


def centroids(mask: np.ndarray) -> list[tuple[float, float]]:
    """Return the centroids (x, y) of the regions that are large enough as fractions of the picture, largest first.

    A pixel counts with its middle, so that a mask filled wholly gives (0.5, 0.5).
    """
    _, _, stats, middles = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=CONNECTIVITY)
    sizes = stats[1:, cv2.CC_STAT_AREA]  # the first is the background
    order = [int(index) for index in np.argsort(-sizes, kind="stable") if sizes[index] >= MIN_SHARE * mask.size]
    found = (middles[1:][order] + 0.5) / mask.shape[::-1]
    return [(float(x), float(y)) for x, y in found]


class _HandsColour(Measurement):
    def __init__(self, clip: Clip) -> None:
        self._path = HandPath(clip)

    def see(self, frame: Frame) -> None:
        self._path.add(centroids(skin(frame.rgb)))

    def finish(self) -> Findings:
        return self._path.findings()


def start(clip: Clip, _tools: Tools) -> Measurement:
    """Begin with a clip."""
    return _HandsColour(clip)
