"""List videos at any address with what is known about them: one table, whatever dataset they come from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from robolift.manifest import Output
from robolift.schema import Kind
from robolift.stages.stage import Input, Inputs, StageConfig

INPUTS = {
    "recording": Input(kind=Kind.RECORDING, optional=True),
}
OUTPUT = Kind.VIDEOS


class Config(StageConfig):
    """Where the videos and their annotations lie."""

    source: Literal["folder", "epic", "ego4d"] = "folder"
    """`folder`: plain video files, such as a GoPro's. `epic`: EPIC-KITCHENS-100 with its CSV. `ego4d`: Ego4D with its
    JSON."""
    videos_uri: str = ""
    """Folder of the videos; the input `recording` instead, for simulated ones."""
    annotations_uri: str = ""
    """CSV (epic, or folder: video_id,start_s,stop_s,narration,...) or JSON (ego4d) of annotated segments; empty:
    none."""
    pattern: str = "**/*.{mp4,MP4,mov,MOV,mkv,avi}"
    """Which files count as videos."""
    participant_pattern: str = ""
    """Regular expression on the video's name whose first group is the participant; empty: the source's own rule."""
    license: str = ""
    """Licence of the videos; empty: the source's own."""
    licenses: tuple[str, ...] = ()
    """Licences that may be used; empty: all. Others are left out and counted."""
    bad_videos: Literal["refuse", "leave_out"] = "refuse"
    """What becomes of a video that can't be decoded to its end or has no picture: an error, or a line in
    problems.json."""


def run(config: Config, inputs: Inputs, output: Output) -> Mapping[str, int]:
    """Write ``videos.parquet``, ``segments.parquet`` and ``problems.json``."""
    raise NotImplementedError
