"""Where a letterboxed clip shows its video: the black bars beside it say nothing of it, and their edges are sharp.

Counted in, an over-exposed clip, nearly white and without any detail, would be the sharpest of all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from robolift.manifest import Manifest
from robolift.schema import read_parquet

Area = tuple[slice, slice]
"""Rows and columns."""

WHOLE: Area = (slice(None), slice(None))
INSET_PX = 2
"""Left out beside a bar: rescaling and compression smear its edge."""


def picture_area(width: int, height: int, side: int) -> Area:
    """Return rows and columns of a (side, side) picture that show a video of this size, fitted in and centred.

    A video of 4:3 on 240 pixels is 240 wide and 180 high, so its rows are 30 to 210, and 32 to 208 are sure.
    """
    longer = max(width, height)
    return _span(height / longer, side), _span(width / longer, side)


def _span(share: float, side: int) -> slice:
    if share == 1:
        return slice(None)
    first = min(math.ceil((1 - share) / 2 * side) + INSET_PX, (side - 1) // 2)
    return slice(first, side - first)


def areas(clips: Manifest, side: int) -> Mapping[str, Area]:
    """Return the area of each video's clips by ``video_id``; empty where the clips have no bars.

    Raises:
        DataError: If the VideoSet that the clips were cut from is not there.
    """
    if clips.config.get("fit") != "letterbox":
        return {}
    uri = clips.parent("videos").file("videos.parquet")
    rows = read_parquet(uri, columns=["video_id", "width", "height"]).to_pylist()
    return {row["video_id"]: picture_area(row["width"], row["height"], side) for row in rows}
