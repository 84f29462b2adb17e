"""The way of a hand through a clip, and what is measured of it, however the hand was found."""

from __future__ import annotations

import numpy as np

from robolift.clips.extractor import Clip, Findings

SCALARS = ("hands", "hand_motion")
TRACKS = ("hand_x", "hand_y")


class HandPath:
    """Collects the centroid of the largest hand in each frame of a clip.

    * ``hands``: fraction of the frames with a hand,
    * ``hand_motion``: mean speed of the centroid between neighbouring frames that both have one, in pictures a second,
    * ``hand_x``, ``hand_y``: the centroid in the sampled frames, as fractions of the picture from its upper left.
    """

    def __init__(self, clip: Clip) -> None:
        """Begin with a clip."""
        self._clip = clip
        self._centroids: list[tuple[float, float]] = []

    def add(self, centroid: tuple[float, float] | None) -> None:
        """Take in the next frame: the centroid as fractions of the picture, None without a hand."""
        self._centroids.append(centroid or (np.nan, np.nan))

    def findings(self) -> Findings:
        """Return what the path tells, after the last frame."""
        path = np.array(self._centroids)
        seen = ~np.isnan(path[:, 0])
        steps = np.hypot(*np.diff(path, axis=0).T)[seen[1:] & seen[:-1]]
        scalars, missing = {"hands": float(seen.mean())}, {}
        if len(steps):
            scalars["hand_motion"] = float(steps.mean() * self._clip.fps)
        else:
            missing["hand_motion"] = "no two neighbouring frames with a hand"
        at = path[list(self._clip.sampled)]
        return Findings(scalars=scalars, missing=missing, tracks={"hand_x": at[:, 0], "hand_y": at[:, 1]})
