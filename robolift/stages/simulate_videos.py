"""Render egocentric videos of known quality, on which the whole of clip_reward can be tried and measured."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from robolift.manifest import Output
from robolift.schema import Kind
from robolift.stages.stage import Input, Inputs, StageConfig

INPUTS: dict[str, Input] = {}
OUTPUT = Kind.RECORDING


class Config(StageConfig):
    """How many videos, how they look, and how hard the task is."""

    num_videos: int = Field(default=24, ge=2)
    """Videos; each is of one participant, who keeps a manner of filming and working."""
    num_participants: int = Field(default=8, ge=2)
    """Participants the videos are spread over."""
    seconds: float = Field(default=30.0, ge=6)
    """Length of a video."""
    height: int = Field(default=240, ge=64)
    """Height of the picture in pixels; the width is 4/3 of it."""
    fps: float = Field(default=30.0, gt=0)
    """Frames a second."""
    seed: int = Field(default=0, ge=0)
    """Decides everything."""


def run(config: Config, inputs: Inputs, output: Output) -> Mapping[str, int]:
    """Write videos, their annotations (folder format), and ``truth.parquet``: the planted quality of each moment."""
    raise NotImplementedError
