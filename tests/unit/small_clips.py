"""Small clips for tests: a ClipSet published from pictures, and one extractor at work without files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from robolift import schema
from robolift.clips import extractors
from robolift.clips.extractor import Clip, Findings, Frame, Tools
from robolift.clips.measuring import sample
from robolift.data.video import encode_video
from robolift.manifest import Manifest, Output, Plan
from robolift.schema import Kind
from robolift.storage import digest_of

FPS = 15.0


def _output(root: str, stage: str, kind: Kind, config: dict[str, Any], content: Any, **inputs: Manifest) -> Output:
    return Output(
        Plan(
            stage=stage,
            kind=kind,
            root=root,
            config=config,
            inputs={name: [manifest] for name, manifest in inputs.items()},
            code="0" * 16,
            digest=digest_of([config, content]),
        )
    )


def publish_clips(
    root: str,
    pictures: Mapping[str, Sequence[np.ndarray]],
    *,
    fps: float = FPS,
    size: tuple[int, int] = (64, 64),
    fit: str = "letterbox",
) -> Manifest:
    """Publish a ClipSet with the pictures of each clip, letterboxed from videos of ``size`` (width, height).

    Equal pictures give an equal digest.
    """
    videos = _output(root, "ingest_videos", Kind.VIDEOS, {}, size)
    row = {"video_id": "video", "width": size[0], "height": size[1]}
    schema.write_table(videos.path / "videos.parquet", pa.Table.from_pylist([row]))
    parent = videos.publish({"videos": 1})
    content = {name: [int(frame.astype(np.int64).sum()) for frame in frames] for name, frames in pictures.items()}
    output = _output(root, "extract_clips", Kind.CLIPS, {"fit": fit, "fps": fps}, [content, size], videos=parent)
    for name, frames in pictures.items():
        encode_video(output.path / "clips" / f"{name}.mp4", frames, fps=fps, size=frames[0].shape[:2])
    rows = [
        {
            "clip_id": name,
            "video_id": "video",
            "file": f"clips/{name}.mp4",
            "fps": fps,
            "num_frames": len(pictures[name]),
        }
        for name in sorted(pictures)
    ]
    table = pa.Table.from_pylist(rows)
    index = table.schema.get_field_index("num_frames")
    table = table.set_column(index, "num_frames", table["num_frames"].cast(pa.int32()))
    schema.write_table(output.path / "clips.parquet", table)
    return output.publish({"clips": len(rows)})


def watch(
    name: str,
    frames: Sequence[np.ndarray],
    *,
    tools: Tools | None = None,
    sampled: tuple[int, ...] | None = None,
    fps: float = FPS,
) -> Findings:
    """Show (S, S, 3) uint8 pictures to one extractor and return what it found."""
    clip = Clip(
        clip_id="clip",
        uri="",
        fps=fps,
        num_frames=len(frames),
        sampled=sample(len(frames), 8) if sampled is None else sampled,
    )
    measurement = extractors.load([name])[name].start(clip, tools or Tools())
    try:
        for index, rgb in enumerate(frames):
            measurement.see(Frame(index, rgb))
        return measurement.finish()
    finally:
        measurement.close()


def grey(level: int, side: int = 64) -> np.ndarray:
    """Return a uniform picture."""
    return np.full((side, side, 3), level, np.uint8)


def coloured(grey_picture: np.ndarray) -> np.ndarray:
    """Return a (H, W) picture as (H, W, 3)."""
    return np.repeat(grey_picture[..., None], 3, axis=2)


def texture(side: int = 96, seed: int = 0) -> np.ndarray:
    """Return a smooth random (side, side, 3) picture that wraps round, so that shifting it loses nothing."""
    from scipy.ndimage import gaussian_filter

    noise = gaussian_filter(np.random.default_rng(seed).normal(size=(side, side)), 3, mode="wrap")
    scaled = (noise - noise.min()) / np.ptp(noise) * 255
    return coloured(scaled.astype(np.uint8))


def shifted(picture: np.ndarray, places: Sequence[int]) -> list[np.ndarray]:
    """Return the picture moved to the right by each number of pixels."""
    return [np.roll(picture, place, axis=1) for place in places]
