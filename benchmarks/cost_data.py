"""Recordings of chosen size for the measurement of costs: rows alone, or videos of a chosen codec and size."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from robolift.data.lerobot_format import FeatureSpec
from robolift.data.lerobot_writer import LeRobotWriter
from robolift.data.video import CODECS, VideoClip, VideoEncoder

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
    """

    episodes: int
    length: int
    version: str = "v2.1"
    cameras: int = 0
    size: tuple[int, int] = (64, 64)
    codec: str = "h264"
    noise: float = 8

    @property
    def name(self) -> str:
        """A folder's name."""
        seen = f"-{self.cameras}x{self.size[0]}x{self.size[1]}-{self.codec}-{self.noise:g}" if self.cameras else ""
        return f"{self.version}-{self.episodes}x{self.length}{seen}"


def write(folder: Path, shape: Shape) -> Path:
    """Write the recording below ``folder``, once; random numbers of a fixed seed, rollouts of which half succeed."""
    path = folder / shape.name
    if path.exists():
        return path
    rng = np.random.default_rng(0)
    names = [f"observation.images.camera{number}" for number in range(shape.cameras)]
    clip = _clip(folder / f"{shape.name}.mp4", shape) if names else None
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
        videos = {name: clip for name in names if clip is not None}
        writer.add_episode(columns, videos=videos, task="fold", extra={"outcome": outcome, "kind": "rollout"})
    writer.finish()
    partial.rename(path)
    return path


def _clip(path: Path, shape: Shape) -> VideoClip:
    """Encode one episode: a bright square crosses a shaded ground, with noise. All episodes and cameras show it."""
    rng = np.random.default_rng(1)
    height, width = shape.size
    ground = np.add.outer(np.arange(height) * 96 // height, np.arange(width) * 96 // width)[..., None]
    noise = rng.normal(0, shape.noise, size=(8, height, width, 3))
    with VideoEncoder(path, fps=FPS, size=shape.size, codec=CODECS[shape.codec]) as video:
        for frame in range(shape.length):
            picture = ground + noise[frame % len(noise)]
            left = frame * (width - width // 4) // shape.length
            picture[height // 3 : 2 * height // 3, left : left + width // 4] += 80
            video.add(np.clip(picture, 0, 255).astype(np.uint8))
    return VideoClip(str(path), 0.0, shape.length, FPS)
