"""The way of a hand through a clip, and what is measured of it, however the hand was found."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from robolift.clips.extractor import Clip, Findings

SCALARS = ("hands", "hand_motion")
TRACKS = ("hand_x", "hand_y")


class HandPath:
    """Collects the centroids of the hands in each frame of a clip, the largest hand first.

    * ``hands``: fraction of the frames with a hand,
    * ``hand_motion``: mean speed of the largest hand's centroid between neighbouring frames that both have one, in
      pictures a second; its way leads to the nearest hand of the next frame, because which of two is the largest may
      change without any of them moving,
    * ``hand_x``, ``hand_y``: the largest hand's centroid in the sampled frames, as fractions of the square picture from
      its upper left.
    """

    def __init__(self, clip: Clip) -> None:
        """Begin with a clip."""
        self._clip = clip
        self._frames: list[np.ndarray] = []

    def add(self, centroids: Sequence[tuple[float, float]]) -> None:
        """Take in the next frame: the hands' centroids (x, y) as fractions of the picture, the largest hand's first."""
        self._frames.append(np.array(centroids, np.float64).reshape(-1, 2))

    def findings(self) -> Findings:
        """Return what the path tells, after the last frame."""
        scalars, missing = {"hands": float(np.mean([len(hands) > 0 for hands in self._frames]))}, {}
        steps = [
            np.hypot(*(after - before[0]).T).min()
            for before, after in itertools.pairwise(self._frames)
            if len(before) and len(after)
        ]
        if steps:
            scalars["hand_motion"] = float(np.mean(steps) * self._clip.fps)
        else:
            missing["hand_motion"] = "no two neighbouring frames with a hand"
        sampled = [self._frames[index] for index in self._clip.sampled]
        at = np.array([hands[0] if len(hands) else (np.nan, np.nan) for hands in sampled])
        return Findings(scalars=scalars, missing=missing, tracks={"hand_x": at[:, 0], "hand_y": at[:, 1]})
