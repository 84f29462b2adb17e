"""Cut clips of equal length, rate and size from videos, around annotated segments and at random."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from robolift.manifest import Output
from robolift.schema import Kind
from robolift.stages.stage import Input, Inputs, StageConfig

INPUTS = {
    "videos": Input(kind=Kind.VIDEOS),
}
OUTPUT = Kind.CLIPS


class Config(StageConfig):
    """Length, rate, size and number of the clips."""

    seconds: float = Field(default=3.0, gt=0)
    """Length of a clip."""
    fps: float = Field(default=15.0, gt=0)
    """Frames a second of a clip, by time and not by counting the video's frames."""
    side: int = Field(default=480, ge=32)
    """Height and width in pixels."""
    fit: Literal["letterbox", "stretch"] = "letterbox"
    """`letterbox` keeps the aspect and pads with black; `stretch` doesn't (as the prototype did)."""
    num_annotated: int = Field(default=10, ge=0)
    """Clips a video around annotated segments, centred on them; fewer where there are fewer segments."""
    num_random: int = Field(default=10, ge=0)
    """Clips a video at random places."""
    min_gap_s: float = Field(default=2.0, ge=0)
    """Least time between the starts of two clips of a video."""
    crf: int = Field(default=23, ge=0, le=51)
    """Quality of the H.264 encoding; lower is better and larger."""
    seed: int = Field(default=42, ge=0)
    """Decides segments and places."""


def run(config: Config, inputs: Inputs, output: Output) -> Mapping[str, int]:
    """Write ``clips/*.mp4`` and ``clips.parquet``."""
    raise NotImplementedError
