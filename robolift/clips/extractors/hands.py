"""Hands by MediaPipe's HandLandmarker (Zhang et al., "MediaPipe Hands", 2020): how often, where, and how fast.

At most two hands, each confidence 0.5, as the prototype; the largest is that whose 21 landmarks span the largest box,
its centroid is their mean. What is measured of the path: :class:`robolift.clips.hand_path.HandPath`.

Every clip has a landmarker of its own: it follows hands from frame to frame, and a shared one would carry the last
clip's hands into the next.
"""

from __future__ import annotations

import numpy as np
from mediapipe import Image, ImageFormat  # type: ignore[import-untyped]
from mediapipe.tasks.python import BaseOptions  # type: ignore[import-untyped]
from mediapipe.tasks.python.vision import (  # type: ignore[import-untyped]
    HandLandmarker,
    HandLandmarkerOptions,
    RunningMode,
)

from robolift.clips.extractor import Clip, Findings, Frame, Measurement, Tools
from robolift.clips.hand_path import SCALARS, TRACKS, HandPath
from robolift.errors import DataError

__all__ = ["SCALARS", "TRACKS", "VERSION", "start"]

VERSION = 1
MAX_HANDS = 2
CONFIDENCE = 0.5


class _Hands(Measurement):
    def __init__(self, clip: Clip, tools: Tools) -> None:
        self._fps = clip.fps
        self._path = HandPath(clip)
        options = HandLandmarkerOptions(
            base_options=BaseOptions(model_asset_buffer=tools.hand_model),
            running_mode=RunningMode.VIDEO,
            num_hands=MAX_HANDS,
            min_hand_detection_confidence=CONFIDENCE,
            min_hand_presence_confidence=CONFIDENCE,
            min_tracking_confidence=CONFIDENCE,
        )
        try:
            self._landmarker = HandLandmarker.create_from_options(options)
        except (RuntimeError, ValueError) as error:
            raise DataError(
                f"MediaPipe can't use the hand model: {error}",
                where="hand_model",
                expected="a hand_landmarker.task bundle",
                mend="copy the bundle again",
            ) from error

    def see(self, frame: Frame) -> None:
        image = Image(image_format=ImageFormat.SRGB, data=np.ascontiguousarray(frame.rgb))
        found = self._landmarker.detect_for_video(image, round(1000 * frame.index / self._fps))
        hands = [np.array([(point.x, point.y) for point in hand]) for hand in found.hand_landmarks]
        hands.sort(key=lambda hand: float(np.ptp(hand, axis=0).prod()), reverse=True)
        self._path.add([tuple(hand.mean(axis=0)) for hand in hands])

    def finish(self) -> Findings:
        return self._path.findings()

    def close(self) -> None:
        self._landmarker.close()


def start(clip: Clip, tools: Tools) -> Measurement:
    """Begin with a clip.

    Raises:
        DataError: If the bundle can't be used.
    """
    return _Hands(clip, tools)
