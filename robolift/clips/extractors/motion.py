"""Motion: dense optical flow between neighbouring frames, and how steady it is.

With m_i the mean length of the flow vectors from frame i to i + 1, in pixels of the decoded picture:

* ``motion_mean`` = mean m_i,
* ``motion_var`` = std m_i: a standard deviation in spite of its name, which is the prototype's,
* ``jerk`` = mean |m_(i+1) - 2 m_i + m_(i-1)|, in fact a second difference; 0 where there are fewer than three m_i.

``flow_x``, ``flow_y``: mean flow from a sampled frame on to the next, in sides of the square picture a second; the last
has none.

Source: Farneback, "Two-frame motion estimation based on polynomial expansion", SCIA 2003; settings of the prototype.
"""

from __future__ import annotations

import itertools

import cv2
import numpy as np

from robolift.clips.extractor import Clip, Findings, Frame, Measurement, Tools

VERSION = 1
SCALARS = ("motion_mean", "motion_var", "jerk")
TRACKS = ("flow_x", "flow_y")

PYRAMID_SCALE, LEVELS, WINDOW, ITERATIONS, POLY_N, POLY_SIGMA, FLAGS = 0.5, 3, 15, 3, 5, 1.2, 0
MIN_FOR_JERK = 3
"""Magnitudes of which a second difference can be taken."""


def flow(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Return the (H, W, 2) float32 flow in pixels between two (H, W) uint8 pictures."""
    start = np.zeros((*before.shape, 2), np.float32)
    found = cv2.calcOpticalFlowFarneback(
        before, after, start, PYRAMID_SCALE, LEVELS, WINDOW, ITERATIONS, POLY_N, POLY_SIGMA, FLAGS
    )
    return np.asarray(found)


def jerk(magnitudes: np.ndarray) -> float:
    """Return the mean absolute second difference of (n,) magnitudes; 0 where n < 3."""
    if len(magnitudes) < MIN_FOR_JERK:
        return 0.0
    return float(np.abs(np.diff(magnitudes, n=2)).mean())


class _Motion(Measurement):
    def __init__(self, clip: Clip) -> None:
        self._clip = clip
        self._before: np.ndarray | None = None
        self._magnitudes: list[float] = []
        self._means: list[np.ndarray] = []

    def see(self, frame: Frame) -> None:
        if self._before is not None:
            found = flow(self._before, frame.grey).astype(np.float64)
            self._magnitudes.append(float(np.hypot(found[..., 0], found[..., 1]).mean()))
            self._means.append(found.mean(axis=(0, 1)) / len(frame.rgb) * self._clip.fps)
        self._before = frame.grey

    def finish(self) -> Findings:
        sampled = self._clip.sampled
        onward = np.full((len(sampled), 2), np.nan)
        for row, (first, end) in enumerate(itertools.pairwise(sampled)):
            onward[row] = np.mean(self._means[first:end], axis=0)
        tracks = {"flow_x": onward[:, 0], "flow_y": onward[:, 1]}
        if not self._magnitudes:
            return Findings(missing=dict.fromkeys(SCALARS, "a clip of one frame"), tracks=tracks)
        magnitudes = np.array(self._magnitudes)
        scalars = {
            "motion_mean": float(magnitudes.mean()),
            "motion_var": float(magnitudes.std()),
            "jerk": jerk(magnitudes),
        }
        return Findings(scalars=scalars, tracks=tracks)


def start(clip: Clip, _tools: Tools) -> Measurement:
    """Begin with a clip."""
    return _Motion(clip)
