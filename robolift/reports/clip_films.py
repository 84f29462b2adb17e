"""Clips as small moving pictures inside the page, each with a still for those who want no motion."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from robolift.data.video_decoder import VideoDecoder
from robolift.manifest import Manifest
from robolift.reports.clip_reward import Clip
from robolift.reports.film import jpeg_uri

WEBP_QUALITY = 45
SIDE = 160


@dataclass(frozen=True, kw_only=True)
class Film:
    """A clip to look at.

    Attributes:
        still: Its middle frame, a ``data:`` address of a JPEG.
        moving: The whole clip in its own time, over and over, a ``data:`` address of an animated WebP.
        alt: What it shows, in words.
    """

    clip: Clip
    place: int
    still: str
    moving: str
    alt: str


def film(clips: Manifest, clip: Clip, *, place: int, num_pictures: int, side: int = SIDE) -> Film:
    """Decode a clip and draw it small.

    Args:
        clips: The ClipSet.
        clip: One of its clips.
        place: Its place by score, from 1.
        num_pictures: Evenly spaced frames that move, fewer where the clip has fewer.
        side: Height and width in pixels.

    Raises:
        DataError: If the video is missing, damaged or too short.
    """
    wanted = np.unique(np.linspace(0, clip.num_frames - 1, min(num_pictures, clip.num_frames)).round().astype(np.int64))
    with VideoDecoder(clips.file(clip.file), fps=clip.fps, size=(side, side)) as decoder:
        images = decoder.decode_at(wanted / clip.fps)
    said = clip.action or f"{clip.kind} clip"
    return Film(
        clip=clip,
        place=place,
        still=jpeg_uri(images[len(images) // 2]),
        moving=webp_uri(images, seconds=clip.num_frames / clip.fps),
        alt=f"{said} of video {clip.video_id}, score {clip.score:.2f}",
    )


def webp_uri(images: NDArray[np.uint8], *, seconds: float) -> str:
    """Return images (n, H, W, 3) as an endless animation that takes so many seconds, as a ``data:`` address."""
    first, *others = [Image.fromarray(image) for image in images]
    buffer = io.BytesIO()
    first.save(
        buffer,
        format="WEBP",
        save_all=True,
        append_images=others,
        duration=round(1000 * seconds / len(images)),
        loop=0,
        quality=WEBP_QUALITY,
        method=4,
    )
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
