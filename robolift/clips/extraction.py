"""Which moments of a video become clips, and the clips themselves: equal in length, rate and size.

A clip's picture k is the video's picture nearest to ``start + k / fps``. Picking every n-th picture instead, with n the
rounded quotient of the rates, turned 50 pictures a second into 16.67 that were written as 15 in the prototype.
"""

from __future__ import annotations

import hashlib
import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robolift.data.footage import Footage, FootageReader, Picture
from robolift.data.video import VideoEncoder, clip_codec
from robolift.errors import DataError

# Decoding on over this long is about as cheap as a jump to a keyframe before the next clip.
JUMP_S = 2.0


@dataclass(frozen=True, kw_only=True)
class ClipRules:
    """How clips are cut.

    Attributes:
        seconds: Length.
        fps: Pictures a second.
        side: Height and width, pixels, even.
        fit: ``letterbox`` or ``stretch``.
        num_annotated: Clips a video around annotated segments, at most.
        num_random: Clips a video at random places, at most.
        min_gap_s: Least time between the starts of two clips of a video.
        crf: Quality of the encoding.
        seed: Decides segments and places.
    """

    seconds: float
    fps: float
    side: int
    fit: str
    num_annotated: int
    num_random: int
    min_gap_s: float
    crf: int
    seed: int

    @property
    def num_frames(self) -> int:
        """Pictures in a clip."""
        return round(self.seconds * self.fps)


@dataclass(frozen=True, kw_only=True)
class PlannedClip:
    """A stretch of a video that becomes a clip.

    Attributes:
        start_frame: Where it starts, in pictures of the video at its mean rate.
        stop_frame: The first one behind it.
        start_s: ``start_frame`` in seconds from the video's beginning.
        segment: The annotated segment it is centred on; None for a random place.
    """

    start_frame: int
    stop_frame: int
    start_s: float
    segment: dict[str, Any] | None


def plan_clips(
    video_id: str, *, duration_s: float, fps: float, segments: Sequence[dict[str, Any]], rules: ClipRules
) -> list[PlannedClip]:
    """Choose the clips of one video; depends on the seed, this video and its segments alone.

    Args:
        video_id: The video.
        duration_s: Its length.
        fps: Its mean rate.
        segments: Its annotated segments, each with ``segment_id``, ``start_s`` and ``stop_s``.
        rules: How many, and how far apart.

    Returns:
        The clips by start; fewer than asked for where segments or room run out, none if the video is too short.
    """
    last = math.floor((duration_s - rules.seconds) * fps + 1e-6)
    if last < 0:
        return []
    rng = np.random.default_rng([rules.seed, int(hashlib.sha256(video_id.encode()).hexdigest()[:16], 16)])
    gap = rules.min_gap_s * fps
    free = np.ones(last + 1, bool)
    starts: dict[int, dict[str, Any] | None] = {}

    def take(start: int, segment: dict[str, Any] | None) -> None:
        starts[start] = segment
        free[max(min(math.ceil(start - gap + 1e-6), start), 0) : max(math.ceil(start + gap - 1e-6), start + 1)] = False

    ordered = sorted(segments, key=lambda segment: str(segment["segment_id"]))
    for index in rng.permutation(len(ordered)).tolist():
        if len(starts) == rules.num_annotated:
            break
        centre_s = (ordered[index]["start_s"] + ordered[index]["stop_s"]) / 2
        start = min(max(round((centre_s - rules.seconds / 2) * fps), 0), last)
        if free[start]:
            take(start, ordered[index])
    for _ in range(rules.num_random):
        places = np.flatnonzero(free)
        if not len(places):
            break
        take(int(places[rng.integers(len(places))]), None)
    length = max(round(rules.seconds * fps), 1)
    return [
        PlannedClip(start_frame=start, stop_frame=start + length, start_s=start / fps, segment=starts[start])
        for start in sorted(starts)
    ]


class _Cutter:
    """Hands the pictures of a video, as they come, to the clips that wait for them."""

    def __init__(self, reader: FootageReader, clips: Sequence[tuple[PlannedClip, Path]], rules: ClipRules) -> None:
        self._reader = reader
        self._rules = rules
        self._codec = clip_codec(rules.crf)
        self._waiting = deque(clips)
        self._opened: list[tuple[float, VideoEncoder]] = []

    def __enter__(self) -> _Cutter:
        return self

    def __exit__(self, *error: object) -> None:
        for _, encoder in self._opened:
            encoder.__exit__(*error)

    @property
    def done(self) -> bool:
        """Whether all clips are written."""
        return not self._waiting and not self._opened

    def serve(self, picture: Picture, until_s: float) -> None:
        """Write ``picture`` for every time up to ``until_s`` that a clip still waits for."""
        while self._waiting and self._waiting[0][0].start_s <= until_s:
            clip, path = self._waiting.popleft()
            size = (self._rules.side, self._rules.side)
            self._opened.append((clip.start_s, VideoEncoder(path, fps=self._rules.fps, size=size, codec=self._codec)))
        image: np.ndarray[Any, Any] | None = None
        for start_s, encoder in self._opened:
            while encoder.count < self._rules.num_frames and start_s + encoder.count / self._rules.fps <= until_s:
                image = self._reader.to_image(picture, self._rules.side, self._rules.fit) if image is None else image
                encoder.add(image)
            if encoder.count == self._rules.num_frames:
                encoder.finish()
        self._opened = [clip for clip in self._opened if clip[1].count < self._rules.num_frames]


def write_clips(uri: str, footage: Footage, clips: Sequence[tuple[PlannedClip, Path]], rules: ClipRules) -> None:
    """Decode a video once, forward, and write its clips, as many at a time as overlap.

    Args:
        uri: The video.
        footage: What is known of it.
        clips: Clips by start, each with the file to write.
        rules: Rate, size and quality.

    Raises:
        DataError: If a picture is damaged, or the video ends before a clip does.
    """
    with FootageReader(uri, footage) as reader:
        for group in _groups(clips, rules):
            _write_group(reader, uri, group, rules)


def _groups(clips: Sequence[tuple[PlannedClip, Path]], rules: ClipRules) -> Iterator[list[tuple[PlannedClip, Path]]]:
    """Yield clips that are so near to each other that no jump lies between them."""
    group: list[tuple[PlannedClip, Path]] = []
    for clip in clips:
        if group and clip[0].start_s > group[-1][0].start_s + rules.seconds + JUMP_S:
            yield group
            group = []
        group.append(clip)
    if group:
        yield group


def _write_group(reader: FootageReader, uri: str, group: Sequence[tuple[PlannedClip, Path]], rules: ClipRules) -> None:
    """Write clips that are near each other; of two pictures equally near to a time the earlier one counts."""
    with _Cutter(reader, group, rules) as cutter:
        before: tuple[float, Picture] | None = None
        for time_s, picture in reader.pictures(group[0][0].start_s):
            if before is not None:
                cutter.serve(before[1], (before[0] + time_s) / 2)
            if cutter.done:
                return
            before = (time_s, picture)
        end_s, gap_s = reader.footage.duration_s, 1 / reader.footage.fps
        if before is not None and before[0] > end_s - 1.5 * gap_s:  # the last picture is shown to the end of the video
            cutter.serve(before[1], end_s)
        if not cutter.done:
            raise DataError(
                f"the video ends before {group[-1][0].start_s + rules.seconds:.3f} s",
                where=uri,
                expected=f"{end_s:.3f} s, as when it was ingested",
                mend="ingest the videos again",
            )
