"""Annotated segments of EPIC-KITCHENS-100, Ego4D and plain CSV files, as one kind of row.

Times are taken from time stamps alone: EPIC's frame numbers count the frames that its authors extracted, which need not
be those of the videos.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from robolift import storage
from robolift.errors import DataError

Source = Literal["folder", "epic", "ego4d"]

EPIC_COLUMNS = ("narration_id", "video_id", "start_timestamp", "stop_timestamp")
FOLDER_COLUMNS = ("video_id", "start_s", "stop_s")
EGO4D_PASSES = ("narration_pass_1", "narration_pass_2")
EGO4D_WINDOW_S = 1.5
"""An Ego4D narration is a moment; its segment reaches this far to both sides."""


@dataclass(frozen=True, kw_only=True)
class Segment:
    """An annotated stretch of a video.

    Attributes:
        segment_id: Unique among the segments of a video set.
        video_id: The video.
        start_s: From the video's beginning.
        stop_s: Later than ``start_s``.
        narration: What is done, in a sentence.
        verb: Of it.
        noun: Of it.
        license: Licence of the video, where the annotations name it.
    """

    segment_id: str
    video_id: str
    start_s: float
    stop_s: float
    narration: str | None = None
    verb: str | None = None
    noun: str | None = None
    license: str | None = None

    @property
    def action(self) -> str | None:
        """Verb and noun."""
        return f"{self.verb} {self.noun}" if self.verb and self.noun else None


def read_segments(source: Source, uri: str) -> list[Segment]:
    """Read the annotations of a dataset.

    Raises:
        DataError: If the file is not of that dataset's format, naming line and column, or a segment ends before it
            starts or stands twice.
    """
    read = {"epic": _epic, "folder": _folder, "ego4d": _ego4d}[source]
    segments = list(read(uri))
    seen: set[str] = set()
    for segment in segments:
        where = f"{uri}, segment {segment.segment_id}"
        if segment.segment_id in seen:
            raise DataError("a segment stands twice", where=where, expected="one row a segment")
        seen.add(segment.segment_id)
        if not 0 <= segment.start_s < segment.stop_s:
            raise DataError(
                f"the segment goes from {segment.start_s} s to {segment.stop_s} s",
                where=where,
                expected="0 <= start < stop",
                mend="correct the annotations",
            )
    return segments


def seconds(text: str) -> float:
    """Return the seconds of ``HH:MM:SS.ss`` or of a plain number.

    Raises:
        ValueError: If it is neither.
    """
    parts = [float(part) for part in text.split(":")]
    if len(parts) > 3 or not all(math.isfinite(part) for part in parts):
        raise ValueError(f"{text!r} is no time")
    return sum(part * 60.0**power for power, part in enumerate(reversed(parts)))


def _rows(uri: str, columns: tuple[str, ...]) -> Iterator[tuple[str, dict[str, str]]]:
    try:
        text = storage.read_bytes(uri).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8: {error}", where=uri, expected="a CSV file") from error
    reader = csv.DictReader(io.StringIO(text, newline=""))
    missing = [name for name in columns if name not in (reader.fieldnames or ())]
    if missing:
        raise DataError(
            f"columns {', '.join(missing)} are missing",
            where=uri,
            expected=f"a CSV file with the columns {', '.join(columns)}",
            mend="give the annotations of this source, or choose another source",
        )
    for row in reader:
        yield f"{uri}, line {reader.line_num}", row


def _span(row: Mapping[str, str], names: tuple[str, str], where: str) -> tuple[float, float]:
    try:
        return seconds(row[names[0]] or ""), seconds(row[names[1]] or "")
    except ValueError as error:
        raise DataError(
            f"{names[0]} {row[names[0]]!r} or {names[1]} {row[names[1]]!r} is no time",
            where=where,
            expected="seconds, or HH:MM:SS.ss",
        ) from error


def _epic(uri: str) -> Iterator[Segment]:
    for where, row in _rows(uri, EPIC_COLUMNS):
        start, stop = _span(row, ("start_timestamp", "stop_timestamp"), where)
        yield Segment(
            segment_id=row["narration_id"],
            video_id=row["video_id"],
            start_s=start,
            stop_s=stop,
            **{name: row.get(name) or None for name in ("narration", "verb", "noun")},
        )


def _folder(uri: str) -> Iterator[Segment]:
    for number, (where, row) in enumerate(_rows(uri, FOLDER_COLUMNS)):
        start, stop = _span(row, ("start_s", "stop_s"), where)
        yield Segment(
            segment_id=f"{row['video_id']}_{number:06d}",
            video_id=row["video_id"],
            start_s=start,
            stop_s=stop,
            **{name: row.get(name) or None for name in ("narration", "verb", "noun", "license")},
        )


def _ego4d(uri: str) -> Iterator[Segment]:
    document = storage.read_json(uri)
    # Release 1 maps video_uid to its narrations; some exports put that below "videos".
    videos = document.get("videos", document) if isinstance(document, dict) else None
    if not isinstance(videos, dict):
        raise DataError("no narrations of Ego4D", where=uri, expected="a JSON object by video_uid")
    for video, record in sorted(videos.items()):
        for name in EGO4D_PASSES:
            notes = record.get(name, {}).get("narrations", []) if isinstance(record, dict) else None
            if not isinstance(notes, list):
                raise DataError(f"{name} is no list", where=f"{uri}, {video}", expected='{"narrations": [...]}')
            for number, note in enumerate(notes):
                yield _moment(
                    video, f"{video}_{name[-1]}_{number:06d}", note, where=f"{uri}, {video}, {name}[{number}]"
                )


def _moment(video: str, segment_id: str, note: Any, *, where: str) -> Segment:
    time_s = note.get("timestamp_sec") if isinstance(note, dict) else None
    if not isinstance(time_s, (int, float)) or isinstance(time_s, bool) or not math.isfinite(time_s):
        raise DataError(f"timestamp_sec is {time_s!r}", where=where, expected="seconds from the video's beginning")
    return Segment(
        segment_id=segment_id,
        video_id=video,
        start_s=max(float(time_s) - EGO4D_WINDOW_S, 0.0),
        stop_s=float(time_s) + EGO4D_WINDOW_S,
        narration=str(note.get("narration_text") or "").strip() or None,
    )
