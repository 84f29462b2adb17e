"""How much there is to do: what costs are counted by, for a dataset."""

from __future__ import annotations

import math

from robolift.planner.recordings import Recordings

DECODERS = {"h264": "h264", "avc1": "h264", "av1": "av1"}
OTHER_CODEC = "av1"
"""What pictures of another codec are counted as."""


LISTED_FILES = 1000
"""Files in one answer of a store's listing."""
WINDOW_BYTES = 50 << 20
"""What the store's client fetches from where it is asked to read on (s3fs, default_block_size)."""


def counted(recordings: Recordings, **more: float) -> dict[str, float]:
    """Return the counts of a dataset, with ``more`` of what a stage is told to do, such as ``step``."""
    counts = {
        "start": 1.0,
        "frame": recordings.frames,
        "episode": recordings.episodes,
        "data_file": recordings.data_files,
        "video_file": recordings.video_files,
        "clip": recordings.episodes * len(recordings.cameras),
        "picture": recordings.pictures,
        "data_byte": recordings.data_bytes,
        "video_byte": recordings.video_bytes,
        "page": recordings.data_files // LISTED_FILES + recordings.video_files // LISTED_FILES,
    }
    if recordings.video_files:
        counts["window_byte"] = counts["clip"] * min(WINDOW_BYTES, recordings.video_bytes / recordings.video_files)
    for camera in recordings.cameras:
        codec = DECODERS.get(camera.codec, OTHER_CODEC)
        pixels = recordings.frames * camera.height * camera.width
        size = recordings.video_bytes / len(recordings.cameras)
        decoded = {f"pixel_{codec}": pixels, f"byte_{codec}": size, f"root_{codec}": math.sqrt(pixels * size)}
        counts |= {name: counts.get(name, 0.0) + count for name, count in decoded.items()}
    return {**counts, **more}
