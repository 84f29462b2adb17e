"""A small LeRobot dataset that something can be learned from: a red square moves to a green goal marker.

Made with the product's own writer, deterministic in its arguments, and with the columns of a simulated recording. A
good controller goes straight to the goal; a bad one goes astray and looks it. Episodes come in turn as demonstration,
autonomous success (with a bad stretch), autonomous failure, and rollout that a person takes over and corrects.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from robolift.data.lerobot_format import DATA_PATHS, V21, FeatureSpec
from robolift.data.lerobot_writer import LeRobotWriter

TASK = "push the square to the goal"
FPS = 20
TOPVIEW = "observation.images.topview"
BEHIND = "observation.images.behindGripper"
STATE = "observation.state"
ENVIRONMENT_STATE = "observation.environment_state"
V21_DATA = DATA_PATHS[V21]
REACHED = 0.12
STEP = 0.12

FEATURES: dict[str, FeatureSpec] = {
    STATE: FeatureSpec("float32", (8,)),
    ENVIRONMENT_STATE: FeatureSpec("float32", (17,)),
    "action": FeatureSpec("float32", (4,)),
    "control_mode": FeatureSpec("string"),
    "intervention": FeatureSpec("int64"),
    "progress_gt": FeatureSpec("float32"),
    "stage_progress_gt": FeatureSpec("float32"),
    "is_good_gt": FeatureSpec("int64"),
}
SCRIPTS = ("demo", "success", "failure", "corrected")


@dataclass
class Episode:
    """One episode of T frames: its columns, where square and goal are in each frame, and its outcome."""

    script: str
    columns: dict[str, Any]
    square: np.ndarray  # (T, 2) in [-1, 1]
    goal: np.ndarray  # (2,)

    @property
    def length(self) -> int:
        return len(self.square)

    @property
    def outcome(self) -> str:
        return "failure" if self.script == "failure" else "success"

    @property
    def kind(self) -> str:
        return "demo" if self.script == "demo" else "rollout"


def controller(script: str, frame: int, bad: tuple[int, int]) -> tuple[str, bool]:
    """Return (control mode, whether it acts well) of a frame; in the stretch ``bad`` the policy goes astray."""
    if script == "demo":
        return "demo", True
    astray = frame >= bad[0] and (script == "failure" or frame < bad[1])
    if script == "corrected" and frame >= bad[1]:
        return ("paused", True) if frame == bad[1] else ("correcting", True)
    return "autonomous", not astray


def make_episode(script: str, *, frames: int, rng: np.random.Generator) -> Episode:
    """Run one episode of at most ``frames`` frames; it ends when the goal is reached."""
    angle = rng.uniform(0, 2 * np.pi)
    goal = rng.uniform(-0.5, 0.5, size=2)
    start = np.clip(goal + np.array([np.cos(angle), np.sin(angle)]) * rng.uniform(0.8, 1.2), -0.95, 0.95)
    # Scaled so that a straight way takes about half of the frames, whatever their number.
    step = STEP * 24 / frames
    first = int(frames * rng.uniform(0.15, 0.25))
    last_bad = 0 if script == "demo" else first + max(2, frames // 5)
    bad = (first, last_bad)
    wrong = rng.uniform(0.55, 0.8) * np.pi * rng.choice([-1, 1])
    rows: list[dict[str, Any]] = []
    places: list[np.ndarray] = []
    place, longest = start, float(np.linalg.norm(goal - start))
    for frame in range(frames):
        mode, good = controller(script, frame, bad)
        away = goal - place
        heading = away / max(float(np.linalg.norm(away)), 1e-6)
        if not good:
            turn = np.array([[np.cos(wrong), -np.sin(wrong)], [np.sin(wrong), np.cos(wrong)]])
            heading = turn @ heading
        move = np.zeros(2) if mode == "paused" else heading * 0.9 + rng.normal(0, 0.05, size=2)
        move = np.clip(move, -1, 1)
        progress = float(np.clip(1 - np.linalg.norm(away) / longest, 0, 1))
        rows.append(
            {
                "action": [*move, 0.0, 1.0 if progress > 0.5 else -1.0],
                "control_mode": mode,
                "intervention": int(mode == "correcting"),
                "progress_gt": progress,
                "stage_progress_gt": progress,
                "is_good_gt": int(good),
            }
        )
        places.append(place)
        place = np.clip(place + step * move, -1, 1)
        if script != "failure" and frame > last_bad and np.linalg.norm(goal - place) < REACHED:
            break
    square = np.array(places)
    return Episode(script, _columns(rows, square, goal), square, goal)


def _columns(rows: Sequence[dict[str, Any]], square: np.ndarray, goal: np.ndarray) -> dict[str, Any]:
    length = len(square)
    before = np.concatenate([square[:1], square[:-1]])
    gripper = np.array([row["action"][3] for row in rows])
    flat = np.zeros(length)
    hand = np.stack([*square.T, flat, gripper, *before.T, flat, gripper], axis=1)
    still = np.tile([0.0, 0.0, 0.0, 1.0], (length, 1))
    objects = np.concatenate(
        [square, flat[:, None], still, before, flat[:, None], still, np.tile([*goal, 0.0], (length, 1))], axis=1
    )
    columns: dict[str, Any] = {name: [row[name] for row in rows] for name in rows[0]}
    columns["action"] = np.array(columns["action"], np.float32)
    columns[STATE] = hand.astype(np.float32)
    columns[ENVIRONMENT_STATE] = objects.astype(np.float32)
    for name in ("progress_gt", "stage_progress_gt"):
        columns[name] = np.array(columns[name], np.float32)
    for name in ("intervention", "is_good_gt"):
        columns[name] = np.array(columns[name], np.int64)
    return columns


def draw(camera: str, square: np.ndarray, goal: np.ndarray, size: int) -> np.ndarray:
    """Return what a camera sees, (size, size, 3) uint8; the views differ by axes and background."""
    image = np.full((size, size, 3), 24 if camera == TOPVIEW else 60, np.uint8)
    for place, radius, colour in ((goal, 0.18, (40, 200, 60)), (square, 0.12, (220, 50, 40))):
        seen = place if camera == TOPVIEW else place[::-1]
        centre = (seen + 1) / 2 * (size - 1)
        half = max(1.0, radius * size / 2)
        left, top = np.clip(np.round(centre - half), 0, size - 1).astype(int)
        right, bottom = np.clip(np.round(centre + half), 0, size - 1).astype(int)
        image[top : bottom + 1, left : right + 1] = colour
    return image


def frames_of(episode: Episode, camera: str, size: int) -> Iterator[np.ndarray]:
    for place in episode.square:
        yield draw(camera, place, episode.goal, size)


def make_episodes(*, episodes: int, frames: int, seed: int, scripts: Sequence[str] = SCRIPTS) -> list[Episode]:
    """Return ``episodes`` episodes, the scripts in turn."""
    return [
        make_episode(scripts[i % len(scripts)], frames=frames, rng=np.random.default_rng([seed, i]))
        for i in range(episodes)
    ]


def write_recording(
    path: Path,
    *,
    episodes: int = 8,
    frames: int = 24,
    version: str = "v3.0",
    cameras: Sequence[str] = (TOPVIEW, BEHIND),
    size: int = 32,
    seed: int = 0,
    scripts: Sequence[str] = SCRIPTS,
    obs: Sequence[str] = (STATE, ENVIRONMENT_STATE),
    omit: Sequence[str] = (),
    extra: bool = True,
    task: str = TASK,
    simulator: dict[str, Any] | None = None,
    fps: int = FPS,
    robot_type: str = "square",
) -> list[Episode]:
    """Write a dataset to ``path`` and return its episodes.

    Args:
        path: Folder to make.
        episodes: How many; their scripts come in turn.
        frames: Longest length of an episode; failures have exactly that many frames.
        version: ``v2.1`` or ``v3.0``.
        cameras: Camera features, maybe none.
        size: Height and width of the images.
        seed: Of everything random.
        scripts: Which of SCRIPTS, in turn.
        obs: State columns to record.
        omit: Columns to leave out.
        extra: Whether the episodes' meta rows carry outcome, kind and seed.
        task: Task text of every episode.
        simulator: Written to info.json as ``robolift``, as the simulator's recordings have it.
        fps: Frames a second.
        robot_type: Written to info.json.
    """
    left_out = {STATE, ENVIRONMENT_STATE} - set(obs) | set(omit)
    features = {name: spec for name, spec in FEATURES.items() if name not in left_out}
    writer = LeRobotWriter(
        path,
        fps=fps,
        features=features,
        cameras=dict.fromkeys(cameras, (size, size)),
        robot_type=robot_type,
        version=version,
        extra_info={"robolift": simulator} if simulator else None,
    )
    made = make_episodes(episodes=episodes, frames=frames, seed=seed, scripts=scripts)
    for number, episode in enumerate(made):
        writer.add_episode(
            {name: episode.columns[name] for name in features},
            videos={camera: frames_of(episode, camera, size) for camera in cameras},
            task=task,
            extra={"outcome": episode.outcome, "kind": episode.kind, "seed": seed + number} if extra else None,
        )
    writer.finish()
    return made


def change_rows(path: Path, episode: int, change: Callable[[pa.Table], pa.Table]) -> None:
    """Rewrite one episode's file of a v2.1 dataset."""
    file = path / V21_DATA.format(episode_chunk=0, episode_index=episode)
    pq.write_table(change(pq.read_table(file)), file)


def set_column(name: str, values: Any) -> Callable[[pa.Table], pa.Table]:
    """Return a change that replaces or appends a column; ``values`` is an array or a function of the old one's."""

    def change(table: pa.Table) -> pa.Table:
        old = table.column(name).to_pylist() if name in table.column_names else None
        fresh = values(old) if callable(values) else values
        array = fresh if isinstance(fresh, (pa.Array, pa.ChunkedArray)) else pa.array(fresh)
        if old is None:
            return table.append_column(name, array)
        return table.set_column(table.column_names.index(name), name, array)

    return change


def change_info(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Rewrite info.json after ``change`` has altered it in place."""
    file = path / "meta/info.json"
    info = json.loads(file.read_text())
    change(info)
    file.write_text(json.dumps(info))


def change_episodes(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Rewrite the episodes' meta rows of a v2.1 dataset after ``change`` has altered each in place."""
    file = path / "meta/episodes.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for row in rows:
        change(row)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
