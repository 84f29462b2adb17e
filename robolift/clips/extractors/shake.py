"""Shake: how much the camera's own movement changes from frame to frame, in pictures a second.

s_i is the shift of the whole picture from frame i to i + 1, by phase correlation, in sides of the square picture;

* ``shake`` = mean |s_(i+1) - s_i| x frames a second.

A steady head, or one that turns evenly, has 0. A hand that moves in front counts for little, since the shift is that of
most of the picture; so do focus and light, since only the phase is compared. Optical flow (`motion`) sees all of these.
A shift of which the correlation shows no clear peak (OpenCV's response below 0.15, which mere noise doesn't reach) is
not known and left out.

Source: Kuglin and Hines, "The phase correlation image alignment method", 1975; OpenCV's with a Hann window.
"""

from __future__ import annotations

import cv2
import numpy as np

from robolift.clips.extractor import Clip, Findings, Frame, Measurement, Tools

VERSION = 1
SCALARS = ("shake",)
TRACKS = ()

MIN_RESPONSE = 0.15


def shift(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Return (2,) x, y in pixels by which a (H, W) uint8 picture went on to the next; NaN where it is not clear."""
    window = cv2.createHanningWindow(before.shape[::-1], cv2.CV_32F)
    found, response = cv2.phaseCorrelate(before.astype(np.float32), after.astype(np.float32), window)
    return np.array(found) if response >= MIN_RESPONSE else np.full(2, np.nan)


class _Shake(Measurement):
    def __init__(self, clip: Clip) -> None:
        self._clip = clip
        self._before: np.ndarray | None = None
        self._shifts: list[np.ndarray] = []

    def see(self, frame: Frame) -> None:
        if self._before is not None:
            self._shifts.append(shift(self._before, frame.grey) / len(frame.rgb))
        self._before = frame.grey

    def finish(self) -> Findings:
        changes = np.hypot(*np.diff(np.array(self._shifts).reshape(-1, 2), axis=0).T)
        known = changes[np.isfinite(changes)]
        if not len(known):
            return Findings(missing={"shake": "no three neighbouring frames whose shift is clear"})
        return Findings(scalars={"shake": float(known.mean() * self._clip.fps)})


def start(clip: Clip, _tools: Tools) -> Measurement:
    """Begin with a clip."""
    return _Shake(clip)
