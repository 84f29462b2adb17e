"""Cut clips of equal length, rate and size from videos, around annotated segments and at random."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from robolift import storage
from robolift.clips.extraction import ClipRules, PlannedClip, plan_clips, write_clips
from robolift.clips.listing import content_tag
from robolift.clips.tables import read_rows, resolve, write_rows
from robolift.data.footage import Footage
from robolift.errors import DataError
from robolift.logging import progress
from robolift.manifest import Output
from robolift.schema import Kind
from robolift.stages.stage import Input, Inputs, StageConfig

INPUTS = {
    "videos": Input(kind=Kind.VIDEOS),
}
OUTPUT = Kind.CLIPS
TEXTS = ("narration", "verb", "noun", "action")


class Config(StageConfig):
    """Length, rate, size and number of the clips."""

    seconds: float = Field(default=3.0, gt=0)
    """Length of a clip."""
    fps: float = Field(default=15.0, gt=0)
    """Frames a second of a clip, by time and not by counting the video's frames."""
    side: int = Field(default=480, ge=32, multiple_of=2)
    """Height and width in pixels, even."""
    fit: Literal["letterbox", "stretch"] = "letterbox"
    """`letterbox` keeps the aspect and pads with black; `stretch` doesn't (as the prototype did)."""
    num_annotated: int = Field(default=10, ge=0)
    """Clips a video around annotated segments, centred on them; fewer where there are fewer segments."""
    num_random: int = Field(default=10, ge=0)
    """Clips a video at random places; fewer where `min_gap_s` leaves no room."""
    min_gap_s: float = Field(default=2.0, ge=0)
    """Least time between the starts of two clips of a video."""
    crf: int = Field(default=23, ge=0, le=51)
    """Quality of the H.264 encoding; lower is better and larger."""
    bad_videos: Literal["refuse", "leave_out"] = "refuse"
    """What becomes of a video that is damaged where a clip is cut, or is not the one that was ingested: an error, or a
    line in problems.json and no clip of it."""
    seed: int = Field(default=42, ge=0)
    """Decides segments and places."""

    @model_validator(mode="after")
    def _whole_clips(self) -> Config:
        frames = self.seconds * self.fps
        if frames < 1 or abs(frames - round(frames)) > 1e-6:
            raise ValueError(f"{self.seconds} s at {self.fps} frames a second are {frames} frames; expected whole ones")
        if not self.num_annotated + self.num_random:
            raise ValueError("no clips: num_annotated and num_random are both 0")
        return self


def run(config: Config, inputs: Inputs, output: Output) -> Mapping[str, int]:
    """Write ``clips/*.mp4``, ``clips.parquet`` and ``problems.json``."""
    source = inputs.one("videos")
    rules = ClipRules(**config.model_dump(exclude={"bad_videos"}))
    videos = read_rows(source.uri, "videos")
    segments = defaultdict(list)
    for segment in read_rows(source.uri, "segments"):
        segments[segment["video_id"]].append(segment)
    counts: Counter[str] = Counter(clips=0, annotated=0, random=0, videos=len(videos), short_videos=0, bad_videos=0)
    rows, problems = [], []
    for video in progress(videos, total=len(videos), what="cut clips", unit="video"):
        clips = plan_clips(
            video["video_id"],
            duration_s=video["duration_s"],
            fps=video["fps"],
            segments=segments[video["video_id"]],
            rules=rules,
        )
        counts["short_videos"] += video["duration_s"] + 1e-6 < rules.seconds
        made = [_row(clip, video, rules) for clip in clips]
        files = [output.path / row["file"] for row in made]
        try:
            _cut(video, source.uri, list(zip(clips, files, strict=True)), rules)
        except DataError as error:
            if config.bad_videos == "refuse":
                raise
            for file in files:
                file.unlink(missing_ok=True)
            told = {"problem": error.problem, "expected": error.expected, "mend": error.mend}
            problems.append({"uri": video["uri"], **told})
            continue
        counts.update(row["kind"] for row in made)
        rows += made
    if not rows:
        raise DataError(
            "no video gives a clip",
            where=source.uri,
            expected=f"videos of at least {rules.seconds} s, with annotated segments where num_random is 0",
            mend="set `seconds` or `num_random`"
            + (f"; {problems[0]['uri']}: {problems[0]['problem']}" if problems else ""),
        )
    counts["clips"], counts["bad_videos"] = len(rows), len(problems)
    output.write_json("problems.json", problems)
    write_rows(output.path, "clips", rows)
    return dict(counts)


def _cut(video: Mapping[str, Any], folder: str, clips: Sequence[tuple[PlannedClip, Path]], rules: ClipRules) -> None:
    """Write the clips of one video, after a check that it is still the one that was ingested."""
    if not clips:
        return
    uri = resolve(video["uri"], folder)
    facts = storage.info(uri)
    if facts is None or facts["size"] != video["bytes"] or content_tag(uri, facts) != video["etag"]:
        raise DataError(
            "the video was changed or lost after it was ingested",
            where=uri,
            expected=f"{video['bytes']} bytes with the hash {video['etag']}",
            mend="restore the file, or ingest the videos again",
        )
    write_clips(uri, _footage(video), clips, rules)


def _footage(video: Mapping[str, Any]) -> Footage:
    return Footage(**{name: video[name] for name in Footage.__dataclass_fields__})


def _row(clip: PlannedClip, video: Mapping[str, Any], rules: ClipRules) -> dict[str, Any]:
    clip_id = f"{video['video_id']}_{clip.start_frame:08d}"
    segment = clip.segment or {}
    return {
        "clip_id": clip_id,
        **{name: video[name] for name in ("source", "video_id", "participant_id", "license")},
        "start_frame": clip.start_frame,
        "stop_frame": clip.stop_frame,
        "start_s": clip.start_s,
        "fps": rules.fps,
        "duration": rules.seconds,
        "num_frames": rules.num_frames,
        "kind": "annotated" if clip.segment else "random",
        **{name: segment.get(name) for name in TEXTS},
        "file": f"clips/{clip_id}.mp4",
    }
