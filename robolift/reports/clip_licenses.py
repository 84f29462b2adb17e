"""Under which licences clips are, and which of them forbid commercial use."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from robolift.reports.clip_reward import Clip

NON_COMMERCIAL = re.compile(r"(?i)(?<![a-z])(nc|non-?\s?commercial|ego4d)(?![a-z])")
"""Licences that name it, and Ego4D's, which its signers know to be for research."""
CLOSED, UNKNOWN = "no commercial use", "not known"
UNSTATED = ("", "unstated", "unknown")


@dataclass(frozen=True, kw_only=True)
class Terms:
    """The clips of one source under one licence."""

    source: str
    license: str
    clips: int
    videos: int

    @property
    def kind(self) -> str:
        """What it means for commercial use, as far as its name tells."""
        if self.license.lower() in UNSTATED:
            return UNKNOWN
        return CLOSED if NON_COMMERCIAL.search(self.license) else "not restricted by name"


def terms(clips: Sequence[Clip]) -> tuple[Terms, ...]:
    """Count clips and videos by source and licence, the commonest first."""
    found = Counter((clip.source, clip.license) for clip in clips)
    videos = {key: {c.video_id for c in clips if (c.source, c.license) == key} for key in found}
    rows = [
        Terms(source=source, license=license, clips=number, videos=len(videos[source, license]))
        for (source, license), number in found.items()
    ]
    return tuple(sorted(rows, key=lambda row: (-row.clips, row.source, row.license)))
