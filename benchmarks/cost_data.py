"""Recordings of chosen size for the measurement of costs: rows alone, or videos of a chosen codec and size."""

from __future__ import annotations

import shutil
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from robolift.data.lerobot_format import FeatureSpec
from robolift.data.lerobot_writer import LeRobotWriter
from robolift.data.video import CODECS

FPS = 30.0
FEATURES = {
    "observation.state": FeatureSpec("float32", (14,)),
    "action": FeatureSpec("float32", (14,)),
    "stage_progress_gt": FeatureSpec("float32"),
    "control_mode": FeatureSpec("string"),
    "intervention": FeatureSpec("int64"),
}


@dataclass(frozen=True)
class Shape:
    """A recording: how many episodes of how many frames, and what its cameras are.

    Attributes:
        episodes: How many.
        length: Frames of each.
        version: ``v2.1``, a file an episode, or ``v3.0``, packed files.
        cameras: How many.
        size: (height, width) of each.
        codec: ``h264`` or ``av1``.
        noise: Standard deviation of the pictures' noise, in grey levels: bytes and decoding time depend on it.
        padding_mb: What each video's file has at its end that no decoder looks at.
    """

    episodes: int
    length: int
    version: str = "v2.1"
    cameras: int = 0
    size: tuple[int, int] = (64, 64)
    codec: str = "h264"
    noise: float = 8
    padding_mb: int = 0

    @property
    def name(self) -> str:
        """A folder's name."""
        seen = f"-{self.cameras}x{self.size[0]}x{self.size[1]}-{self.codec}-{self.noise:g}" if self.cameras else ""
        padded = f"-{self.padding_mb}mb" if self.padding_mb else ""
        return f"{self.version}-{self.episodes}x{self.length}{seen}{padded}"


def write(folder: Path, shape: Shape) -> Path:
    """Write the recording below ``folder``, once; random numbers of a fixed seed, rollouts of which half succeed."""
    path = folder / shape.name
    if path.exists():
        return path
    rng = np.random.default_rng(0)
    names = [f"observation.images.camera{number}" for number in range(shape.cameras)]
    noise = np.random.default_rng(1).normal(0, shape.noise, size=(8, *shape.size, 3))
    partial = folder / f".{shape.name}"
    shutil.rmtree(partial, ignore_errors=True)
    writer = LeRobotWriter(
        partial,
        fps=FPS,
        features=FEATURES,
        cameras=dict.fromkeys(names, shape.size),
        robot_type="arm",
        version=shape.version,
        codec=CODECS[shape.codec],
    )
    for episode in range(shape.episodes):
        columns = {
            "observation.state": rng.normal(size=(shape.length, 14)).astype(np.float32),
            "action": rng.normal(size=(shape.length, 14)).astype(np.float32),
            "stage_progress_gt": np.linspace(0, 1, shape.length, dtype=np.float32),
            "control_mode": ["autonomous"] * shape.length,
            "intervention": np.zeros(shape.length, np.int64),
        }
        outcome = "success" if episode % 2 else "failure"
        videos = {name: _pictures(shape, noise, len(names) * episode + place) for place, name in enumerate(names)}
        writer.add_episode(columns, videos=videos, task="fold", extra={"outcome": outcome, "kind": "rollout"})
    writer.finish()
    if shape.padding_mb:
        for video in sorted(partial.rglob("*.mp4")):
            _pad(video, shape.padding_mb << 20)
    partial.rename(path)
    return path


def _pad(video: Path, size: int) -> None:
    """Append a box of free space (ISO/IEC 14496-12, 8.1.2) to an MP4 file."""
    with video.open("ab") as file:
        file.write(struct.pack(">I4s", size, b"free") + np.random.default_rng(2).bytes(size - 8))


def _pictures(shape: Shape, noise: np.ndarray, number: int) -> Iterator[np.ndarray]:
    """Yield the frames of a clip: a bright square crosses a shaded ground, with noise; each ``number`` has its own.

    Equal packed pictures are stored once, and features of equal pictures compress: no recording repeats itself.
    """
    height, width = shape.size
    ground = np.add.outer(np.arange(height) * 96 // height, np.arange(width) * 96 // width)[..., None]
    noise = np.roll(noise, 7 * number, axis=2)
    for frame in range(shape.length):
        picture = ground + noise[(frame + number) % len(noise)]
        left = frame * (width - width // 4) // shape.length
        picture[height // 3 : 2 * height // 3, left : left + width // 4] += 60 + number % 40
        yield np.clip(picture, 0, 255).astype(np.uint8)
