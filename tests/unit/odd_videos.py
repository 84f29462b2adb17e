"""Video files as they come: any rate, also a varying one, turned, started late, broken, or no video at all."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import coded_video
import numpy as np
from av.video.frame import VideoFrame

MILLISECOND = Fraction(1, 1000)
UPRIGHT = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)


def write_timed(path: Path, times_ms: Sequence[int], *, size: tuple[int, int] = (64, 128), **options: str) -> Path:
    """Write coded pictures, number k at ``times_ms[k]``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=1000, options={"crf": "18", "g": "10", **options})
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p" if not size[0] % 2 and not size[1] % 2 else "yuv444p"
        stream.codec_context.time_base = MILLISECOND
        for number, time_ms in enumerate(times_ms):
            frame = VideoFrame.from_ndarray(coded_video.coded_image(0, number, size), format="rgb24")
            frame.pts, frame.time_base = time_ms, MILLISECOND
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_steady(path: Path, *, fps: float, seconds: float, start_ms: int = 0, **options: str) -> Path:
    """Write coded pictures at a constant rate."""
    return write_timed(path, [start_ms + round(k * 1000 / fps) for k in range(round(seconds * fps))], **options)


def turn_clockwise(path: Path, *, height: int) -> Path:
    """Give an mp4 file the display matrix of a phone held upright: shown turned by 90 degrees clockwise."""
    content = path.read_bytes()
    place = content.index(UPRIGHT, content.index(b"tkhd"))
    matrix = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, height << 16, 0, 1 << 30)
    path.write_bytes(content[:place] + matrix + content[place + len(matrix) :])
    return path


def write_audio(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=48000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 48000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 48000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_empty(path: Path) -> Path:
    """Write a video stream without a picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=15)
        stream.height, stream.width, stream.pix_fmt = 64, 128, "yuv420p"
        container.start_encoding()
    return path


def picture_numbers(path: Path) -> list[int]:
    """Return the number that each picture of a file says it is."""
    with av.open(str(path)) as container:
        return [coded_video.read_code(frame.to_ndarray(format="rgb24"))[1] for frame in container.decode(video=0)]
