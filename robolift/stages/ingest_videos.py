"""List videos at any address with what is known about them: one table, whatever dataset they come from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import model_validator

from robolift import storage
from robolift.clips.annotations import Segment, read_segments
from robolift.clips.listing import LICENSES, VideoFile, find_videos
from robolift.clips.tables import relative, write_rows
from robolift.data.content import sha256
from robolift.data.footage import Footage, inspect
from robolift.data.problems import Problems
from robolift.errors import DataError, UsageError
from robolift.logging import progress
from robolift.manifest import Output
from robolift.schema import Kind
from robolift.stages.stage import Input, Inputs, StageConfig

INPUTS = {
    "recording": Input(kind=Kind.RECORDING, optional=True),
}
OUTPUT = Kind.VIDEOS
# What the simulated recordings' folder, names and terms are.
RECORDED_VIDEOS = "videos"
RECORDED_ANNOTATIONS = "annotations.csv"
RECORDED_LICENSE = "CC0-1.0"
RECORDED_PARTICIPANT = r"^(P\d+)_"


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
    """What becomes of a video that can't be read to its end or has no picture at its beginning or end, and of a segment
    outside its video: an error, or a line in problems.json. Damage in between shows in extract_clips."""

    @model_validator(mode="after")
    def _one_place(self) -> Config:
        if self.annotations_uri and not self.videos_uri:
            raise ValueError("annotations_uri without videos_uri: a recording brings its own annotations")
        return self


def identity(config: Config) -> dict[str, Any]:
    """Return what lies outside the product's outputs, so that changed videos or annotations are another set."""
    found: dict[str, Any] = {}
    if config.videos_uri:
        files = _files(config, config.videos_uri)
        found["videos"] = [[file.video_id, file.bytes, file.etag] for file in files]
    if config.annotations_uri:
        found["annotations"] = sha256(config.annotations_uri)
    return found


def run(config: Config, inputs: Inputs, output: Output) -> Mapping[str, int]:
    """Write ``videos.parquet``, ``segments.parquet`` and ``problems.json``."""
    config = _with_recording(config, inputs)
    files = _files(config, config.videos_uri)
    segments = read_segments(config.source, config.annotations_uri) if config.annotations_uri else []
    licenses = _licenses(config, files, segments)
    allowed = [file for file in files if not config.licenses or licenses[file.video_id] in config.licenses]
    if not allowed:
        raise DataError(
            "no video has one of the licences that may be used",
            where=config.videos_uri,
            expected=", ".join(config.licenses),
            mend=f"`licenses` may hold {', '.join(sorted(set(licenses.values())))}",
        )
    problems = _Bad(config)
    rows = []
    for file in progress(allowed, total=len(allowed), what="read videos", unit="video"):
        try:
            footage = inspect(file.uri)
        except DataError as error:
            problems.add(file.uri, error)
            continue
        rows.append(_row(config, file, footage, license=licenses[file.video_id], root=output.plan.root))
    kept = _fitting(segments, {row["video_id"]: row["duration_s"] for row in rows}, problems)
    problems.check(left=len(rows))
    write_rows(output.path, "videos", rows)
    write_rows(output.path, "segments", [_segment_row(segment) for segment in kept])
    output.write_json("problems.json", problems.document(output.plan.root))
    known = {file.video_id for file in files}
    return {
        "videos": len(rows),
        "segments": len(kept),
        "bad_videos": problems.bad_videos,
        "bad_segments": problems.bad_segments,
        "other_licenses": len(files) - len(allowed),
        "segments_without_video": sum(segment.video_id not in known for segment in segments),
    }


def _with_recording(config: Config, inputs: Inputs) -> Config:
    recording = inputs.get_one("recording")
    if (recording is None) == (not config.videos_uri):
        raise UsageError(
            "ingest_videos takes the videos of `videos_uri` or of the input recording: give one of them"
            + (", not both" if recording else "")
        )
    if recording is None:
        return config
    return config.model_copy(
        update={
            "videos_uri": storage.join(recording.uri, RECORDED_VIDEOS),
            "annotations_uri": storage.join(recording.uri, RECORDED_ANNOTATIONS),
            "participant_pattern": config.participant_pattern or RECORDED_PARTICIPANT,
            "license": config.license or RECORDED_LICENSE,
        }
    )


def _files(config: Config, uri: str) -> list[VideoFile]:
    return find_videos(
        uri, source=config.source, pattern=config.pattern, participant_pattern=config.participant_pattern
    )


def _licenses(config: Config, files: Sequence[VideoFile], segments: Sequence[Segment]) -> dict[str, str]:
    """Return the licence of each video: as its annotations, the configuration or the source say."""
    stated = defaultdict(set)
    for segment in segments:
        if segment.license:
            stated[segment.video_id].add(segment.license)
    for video_id, names in stated.items():
        if len(names) > 1:
            raise DataError(
                f"video {video_id} has several licences: {', '.join(sorted(names))}",
                where=config.annotations_uri,
                expected="one in all its rows",
            )
    default = config.license or LICENSES[config.source]
    return {file.video_id: next(iter(stated.get(file.video_id, ())), default) for file in files}


def _row(config: Config, file: VideoFile, footage: Footage, *, license: str, root: str) -> dict[str, Any]:
    return {
        "video_id": file.video_id,
        "source": config.source,
        "uri": relative(file.uri, root),
        **vars(footage),
        "participant_id": file.participant_id,
        "license": license,
        "etag": file.etag,
        "bytes": file.bytes,
    }


def _segment_row(segment: Segment) -> dict[str, Any]:
    names = ("segment_id", "video_id", "start_s", "stop_s", "narration", "verb", "noun", "action")
    return {name: getattr(segment, name) for name in names}


class _Bad:
    """What is wrong with videos and segments, to be refused or written down."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._found: list[tuple[str, DataError]] = []
        self.bad_videos = 0
        self.bad_segments = 0

    def add(self, uri: str, error: DataError) -> None:
        self._found.append((uri, error))
        self.bad_videos += 1

    def add_segment(self, error: DataError) -> None:
        self._found.append((error.where, error))
        self.bad_segments += 1

    def check(self, *, left: int) -> None:
        """Raise if anything was found and is to be refused, or if no video is left."""
        problems = Problems(self._config.videos_uri)
        for uri, error in self._found:
            problems.add(error.problem, where=uri, expected=error.expected, mend=error.mend)
        if self._config.bad_videos == "refuse" or not left:
            problems.check()

    def document(self, root: str) -> list[dict[str, str]]:
        return [
            {
                "uri": relative(uri, root) if "://" in uri else uri,
                "problem": error.problem,
                "expected": error.expected,
                "mend": error.mend,
            }
            for uri, error in self._found
        ]


def _fitting(segments: Sequence[Segment], durations: Mapping[str, float], problems: _Bad) -> list[Segment]:
    """Return the segments of videos that are there, and note those that begin behind their video's end."""
    kept = []
    for segment in segments:
        if segment.video_id not in durations:
            continue
        if segment.start_s >= durations[segment.video_id]:
            problems.add_segment(
                DataError(
                    "an annotated segment begins behind the end of its video",
                    where=f"segment {segment.segment_id} at {segment.start_s:.2f} s, "
                    f"video of {durations[segment.video_id]:.2f} s",
                    expected="annotations of these videos",
                    mend="give the annotations that belong to the videos",
                )
            )
            continue
        kept.append(segment)
    return kept
