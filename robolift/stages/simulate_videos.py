"""Render egocentric videos of known quality, on which the whole of clip_reward can be tried and measured."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field

from robolift import schema, storage
from robolift.data.video import Codec, encode_video
from robolift.logging import progress
from robolift.manifest import Output
from robolift.schema import Kind
from robolift.sim.ego_motion import ASPECT, FACTORS
from robolift.sim.egocentric import EgoVideo, plan_videos, render
from robolift.stages.stage import Input, Inputs, StageConfig

INPUTS: dict[str, Input] = {}
OUTPUT = Kind.RECORDING

# A keyframe a second, as cameras have them; fast, because only the content's quality is meant to differ.
CODEC = Codec(
    "h264", "libx264", (("preset", "superfast"), ("crf", "20"), ("g", "30"), ("bf", "0"), ("x264-params", "mbtree=0"))
)
VIDEOS = "videos"
ANNOTATIONS = "annotations.csv"
COLUMNS = ("video_id", "start_s", "stop_s", "narration", "verb", "noun")
MIN_TASK_S = 0.5


class Config(StageConfig):
    """How many videos, how they look, and how hard the task is."""

    num_videos: int = Field(default=24, ge=2)
    """Videos; each is of one participant, who keeps a manner of filming and working."""
    num_participants: int = Field(default=8, ge=2)
    """Participants the videos are spread over."""
    seconds: float = Field(default=30.0, ge=6)
    """Length of a video."""
    height: int = Field(default=240, ge=64, multiple_of=2)
    """Height of the picture in pixels, even; the width is 4/3 of it."""
    fps: float = Field(default=30.0, ge=5)
    """Frames a second."""
    seed: int = Field(default=0, ge=0)
    """Decides everything."""


def run(config: Config, inputs: Inputs, output: Output) -> Mapping[str, int]:
    """Write videos, their annotations (folder format), and ``truth.parquet``: the planted quality of each moment."""
    videos = plan_videos(**config.model_dump())
    for video in progress(videos, total=len(videos), what="simulate videos", unit="video"):
        path = output.path / VIDEOS / f"{video.video_id}.mp4"
        encode_video(path, render(video), fps=video.fps, size=video.size, codec=CODEC)
    rows = [row for video in videos for row in _tasks(video)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([COLUMNS, *rows])
    storage.write_bytes(str(output.path / ANNOTATIONS), text.getvalue().encode())
    truth = pa.concat_tables([_truth(video) for video in sorted(videos, key=lambda video: video.video_id)])
    schema.write_table(output.path / "truth.parquet", truth)
    output.metrics["utility_mean"] = float(np.mean(truth.column("utility").to_numpy()))
    return {"videos": len(videos), "frames": truth.num_rows, "segments": len(rows)}


def _tasks(video: EgoVideo) -> list[tuple[Any, ...]]:
    spans = [(start / video.fps, stop / video.fps) for start, stop in video.course.tasks]
    text = ("carry the ball to the goal", "carry", "ball")
    return [
        (video.video_id, f"{start:.3f}", f"{stop:.3f}", *text) for start, stop in spans if stop - start >= MIN_TASK_S
    ]


def _truth(video: EgoVideo) -> pa.Table:
    """Return the planted factors and utility of each frame, and where in the picture the hand is (null: not there)."""
    course = video.course
    frames = len(course.factors)
    seen = course.factors[:, FACTORS.index("hands")] > 0
    y, x = (course.hand + course.camera).T
    return pa.table(
        {
            "video_id": pa.array([video.video_id] * frames),
            "participant_id": pa.array([video.participant_id] * frames),
            "time_s": np.arange(frames) / video.fps,
            **{name: course.factors[:, column] for column, name in enumerate(FACTORS)},
            "utility": course.utility,
            "hand_x": pa.array(x / ASPECT, mask=~seen),
            "hand_y": pa.array(y, mask=~seen),
        }
    )
