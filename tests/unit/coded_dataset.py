"""Small LeRobot datasets whose every number and image says where it belongs."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from coded_video import SIZE, coded_frames

from robolift.data.lerobot_writer import FeatureSpec, LeRobotWriter

VERSIONS = ("v2.1", "v3.0")
EPISODES = "meta/episodes/chunk-000/file-000.parquet"  # of v3.0
FPS = 20
TOP = "observation.images.top"
WRIST = "observation.images.wrist"
CAMERAS = {TOP: SIZE, WRIST: (32, 32)}
LENGTHS = (12, 9, 15, 7)
TASKS = ("pick up the puck", "open the drawer")
FEATURES = {
    "observation.state": FeatureSpec("float32", (3,), ("x", "y", "z")),
    "action": FeatureSpec("float32", (2,)),
    "intervention": FeatureSpec("int64"),
    "control_mode": FeatureSpec("string"),
    "done": FeatureSpec("bool"),
}


def columns(episode: int, length: int) -> dict[str, Any]:
    frame = np.arange(length)
    return {
        "observation.state": np.stack([np.full(length, episode), frame, frame / 10], axis=1),
        "action": np.stack([frame - episode, np.full(length, 0.5)], axis=1).astype(np.float32),
        "intervention": (frame % 3 == 0).astype(np.int64),
        "control_mode": ["correcting" if step % 3 == 0 else "autonomous" for step in frame],
        "done": frame == length - 1,
    }


def write_dataset(path: Path, version: str, *, lengths: Sequence[int] = LENGTHS, **options: Any) -> Path:
    """Write a dataset; episode i has task i % 2, cameras show coded images."""
    cameras = options.pop("cameras", CAMERAS)
    writer = LeRobotWriter(
        path, fps=FPS, features=FEATURES, cameras=cameras, robot_type="sawyer", version=version, **options
    )
    for episode, length in enumerate(lengths):
        number = writer.add_episode(
            columns(episode, length),
            videos={camera: coded_frames(episode, length, size) for camera, size in cameras.items()},
            task=TASKS[episode % 2],
            extra={"outcome": "success" if episode % 2 else "failure", "seed": 100 + episode},
        )
        assert number == episode
    writer.finish()
    return path


def write_packed(folder: Path) -> dict[str, Path]:
    """Write one dataset of each version into ``folder``; v3.0's is packed into several files."""
    limits = {"data_file_mb": 0.003, "video_file_mb": 0.006}
    return {version: write_dataset(folder / version, version, **limits) for version in VERSIONS}


def data_file(root: Path, episode: int = 0) -> Path:
    """Return where v2.1 has the rows of an episode."""
    return root / f"data/chunk-000/episode_{episode:06d}.parquet"


def rewrite(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Change a Parquet file in place."""
    pq.write_table(change(pq.read_table(path)), path)


def with_column(name: str, values: pa.Array) -> Callable[[pa.Table], pa.Table]:
    """Return a change that puts ``values`` in the place of a column."""
    return lambda table: table.set_column(table.column_names.index(name), name, values)


def edit_json(path: Path, change: Callable[[Any], Any]) -> None:
    """Change a JSON file in place; ``change`` edits the document it is given, or returns another."""
    document = json.loads(path.read_text())
    changed = change(document)
    path.write_text(json.dumps(document if changed is None else changed))
