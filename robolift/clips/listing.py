"""Which files of a folder are videos, what each is called, and whose it is."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from robolift import storage
from robolift.clips.annotations import Source
from robolift.data.content import CONTENT_TAGS, sha256
from robolift.errors import DataError, UsageError

LICENSES = {"epic": "CC-BY-NC-4.0", "ego4d": "Ego4D License Agreement", "folder": "unstated"}
_BRACES = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True)
class VideoFile:
    """A video file before it was opened.

    Attributes:
        video_id: What it is called.
        uri: Where it lies.
        participant_id: Whose it is, where that is known.
        bytes: Its size.
        etag: What identifies its content, as :func:`content_tag` gives it.
    """

    video_id: str
    uri: str
    participant_id: str | None
    bytes: int
    etag: str


def find_videos(uri: str, *, source: Source, pattern: str, participant_pattern: str) -> list[VideoFile]:
    """List the videos below an address, sorted by id.

    EPIC-KITCHENS and Ego4D name a video by its file alone; in a plain folder cameras number from 1 in each subfolder,
    so the path counts: ``anna/GX010012.MP4`` is ``anna_GX010012``.

    Raises:
        UsageError: If a pattern is no pattern.
        DataError: If there is none, or two would be called alike.
    """
    from fsspec.utils import glob_translate  # noqa: PLC0415  (options are printed without it)

    participant = _participant_rule(source, participant_pattern)
    wanted = re.compile("|".join(glob_translate(each) for each in _without_braces(pattern)))
    found: dict[str, VideoFile] = {}
    for name, facts in storage.list_entries(uri).items():
        if not wanted.fullmatch(name):
            continue
        path = PurePosixPath(name)
        parts = (*path.parts[:-1], path.stem) if source == "folder" else (path.stem,)
        video_id = re.sub(r"[^A-Za-z0-9._-]", "-", "_".join(parts))
        if video_id in found:
            raise DataError(
                f"two videos are called {video_id}",
                where=f"{found[video_id].uri}, {storage.join(uri, name)}",
                expected="file names that differ",
                mend="rename one, or narrow `pattern`",
            )
        etag = content_tag(storage.join(uri, name), facts)
        whose = participant.search(video_id) if participant else None
        person = whose[1] if whose else path.parts[0] if source == "folder" and len(path.parts) > 1 else None
        found[video_id] = VideoFile(video_id, storage.join(uri, name), person, int(facts["size"]), etag)
    if not found:
        raise DataError(
            "no videos", where=uri, expected=f"files like {pattern}", mend="check the address and `pattern`"
        )
    return [found[key] for key in sorted(found)]


def content_tag(uri: str, facts: Mapping[str, Any]) -> str:
    """Return what identifies the content of a file: the store's own hash, or ``sha256:...`` where it keeps none.

    On a disk the file is read for it: one overwritten in place by another of the same size is another video.
    """
    stated = next((str(facts[tag]).strip('"') for tag in CONTENT_TAGS if facts.get(tag)), "")
    return stated or f"sha256:{sha256(uri)}"


def _participant_rule(source: Source, pattern: str) -> re.Pattern[str] | None:
    if not pattern:
        return re.compile(r"^(P\d+)_") if source == "epic" else None
    try:
        rule = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"participant_pattern {pattern!r} is no regular expression: {error}") from error
    if rule.groups < 1:
        raise UsageError(f"participant_pattern {pattern!r} has no group; expected one, such as ^(P\\d+)_")
    return rule


def _without_braces(pattern: str) -> Iterator[str]:
    """Yield the patterns that one with ``{a,b}`` stands for."""
    pieces = _BRACES.split(pattern)
    choices = [piece.split(",") if number % 2 else [piece] for number, piece in enumerate(pieces)]
    return ("".join(parts) for parts in itertools.product(*choices))
