"""What a feature extractor is: a module that declares what it measures and watches a clip frame by frame."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import cv2
import numpy as np

from robolift.clips.encoders.encoder import Encoder
from robolift.clips.letterbox import WHOLE, Area


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A clip to be measured.

    Attributes:
        clip_id: Its name.
        uri: The video.
        fps: Frames a second.
        num_frames: How many it has, at least one.
        sampled: Frames of which rows are kept in ``frames.parquet``, ascending; the encoder sees these.
        area: Rows and columns in which the decoded pictures show the video, without the bars of a letterbox.
    """

    clip_id: str
    uri: str
    fps: float
    num_frames: int
    sampled: tuple[int, ...]
    area: Area = WHOLE


@dataclass(frozen=True)
class Frame:
    """One decoded frame of a clip, shared by all extractors.

    Attributes:
        index: Counted from 0.
        rgb: (S, S, 3) uint8, bars included.
        area: Where it shows the video.
    """

    index: int
    rgb: np.ndarray
    area: Area = WHOLE

    @functools.cached_property
    def grey(self) -> np.ndarray:
        """(H, W) uint8, the video alone: 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601), computed once."""
        return np.asarray(cv2.cvtColor(np.ascontiguousarray(self.rgb[self.area]), cv2.COLOR_RGB2GRAY))


@dataclass(frozen=True, kw_only=True)
class Tools:
    """What is loaded once and used for every clip.

    Attributes:
        encoder: Image encoder, None unless `embedding` is asked for.
        hand_model: MediaPipe's hand_landmarker.task bundle, empty unless `hands` is asked for.
    """

    encoder: Encoder | None = None
    hand_model: bytes = b""


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What an extractor found in a clip.

    Attributes:
        scalars: One number for each declared scalar that can be known.
        missing: For each other declared scalar the reason why it can't.
        tracks: For each declared track an array over the clip's sampled frames: (n,) or (n, width), NaN where not
            known.
    """

    scalars: Mapping[str, float] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    tracks: Mapping[str, np.ndarray] = field(default_factory=dict)


class Measurement(ABC):
    """An extractor at work on one clip; it knows nothing of the clips before."""

    @abstractmethod
    def see(self, frame: Frame) -> None:
        """Take in the next frame."""

    @abstractmethod
    def finish(self) -> Findings:
        """Return what was found, after the last frame."""

    def close(self) -> None:  # noqa: B027  (most hold nothing)
        """Let go of what is held; called also when a clip turns out to be broken."""


class Extractor(Protocol):
    """A module of ``robolift.clips.extractors``, as a type checker sees it; the file's name is the extractor's.

    Attributes:
        VERSION: Raised when the same clip gives other numbers.
        SCALARS: Columns of ``features.parquet`` that it fills.
        TRACKS: Columns of ``frames.parquet`` that it fills.
    """

    VERSION: int
    SCALARS: tuple[str, ...]
    TRACKS: tuple[str, ...]

    def start(self, clip: Clip, tools: Tools) -> Measurement:
        """Begin with a clip."""
