"""A dataset in memory that a value model can learn from: a red dot goes to a green one, or drifts and fails."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa

SIZE = 24


class DotDataset:
    """Has what the value model uses of robolift.data.dataset.Dataset; the target counts frames to the end."""

    def __init__(
        self,
        lengths: Sequence[int] = (7, 9, 5, 12, 8, 6, 10, 11),
        *,
        cameras: Sequence[str] = ("front", "side"),
        tasks: Sequence[str] = ("go to the green dot", "go to the dot that is green"),
        seed: int = 0,
    ) -> None:
        rng = np.random.default_rng(seed)
        self.uri = f"memory://dots-{seed}"
        self.cameras, self.tasks, self.fps = tuple(cameras), tuple(tasks), 10.0
        self.num_episodes, self.num_frames = len(lengths), sum(lengths)
        self.starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        episode = np.repeat(np.arange(len(lengths)), lengths)
        frame = np.concatenate([np.arange(n) for n in lengths])
        self.success = np.arange(len(lengths)) % 2 == 0
        self.goal = rng.uniform(0.2, 0.8, (len(lengths), 2)).astype(np.float32)[episode]
        share = ((frame + 1) / np.array(lengths)[episode])[:, None].astype(np.float32)
        begin = rng.uniform(0.1, 0.9, (len(lengths), 2)).astype(np.float32)[episode]
        self.dot = np.where(self.success[episode][:, None], begin + share * (self.goal - begin), begin)
        left = np.array(lengths)[episode] - 1 - frame
        longest = max(lengths)
        target = (-left - np.where(self.success[episode], 0, longest)) / (2 * longest)
        # A failed episode never leaves its start: no progress that an image could show.
        progress = np.where(self.success[episode], share[:, 0], 0)
        self.columns = {
            "stage_progress_gt": progress.astype(np.float32),
            "observation.state": np.concatenate([self.dot, self.goal, np.ones_like(share)], axis=1),
            "gripper": rng.uniform(size=self.num_frames).astype(np.float32),
            "action": (self.goal - self.dot).astype(np.float32),
        }
        self.features = {name: {"dtype": "float32"} for name in self.columns}
        self.frames = pa.table({"episode_index": episode, "frame_index": frame})
        outcome = ["success" if ok else "failure" for ok in self.success]
        task = [self.tasks[e % len(self.tasks)] for e in range(len(lengths))]
        self.episodes = pa.table({"episode_index": np.arange(len(lengths)), "task": task, "outcome": outcome})
        reward = pa.array(np.zeros(self.num_frames, np.float32))
        self.targets = self.frames.append_column("value_target", pa.array(target, type=pa.float32()))
        self.targets = self.targets.append_column("reward", reward)

    def column(self, name: str, episodes: Sequence[int] | None = None) -> np.ndarray:
        rows = self.columns[name]
        if episodes is None:
            return rows
        return np.concatenate([rows[:0], *(rows[self.starts[e] : self.starts[e + 1]] for e in episodes)])

    def keys(self, first: int, end: int) -> dict[str, np.ndarray]:
        return {name: self.frames.column(name).to_numpy()[first:end] for name in self.frames.column_names}

    def image_size(self, camera: str, episode: int = 0) -> tuple[int, int]:
        return SIZE, SIZE

    def video(
        self,
        episode: int,
        camera: str,
        *,
        size: tuple[int, int] | None = None,
        parts: Iterable[range] | None = None,
    ) -> Iterator[np.ndarray]:
        flip = self.cameras.index(camera) == 1
        height, width = size or (SIZE, SIZE)
        first, end = int(self.starts[episode]), int(self.starts[episode + 1])
        for row in (first + frame for part in parts or [range(end - first)] for frame in part):
            image = np.full((height, width, 3), 40, np.uint8)
            for (x, y), colour in ((self.goal[row], (60, 255, 60)), (self.dot[row], (255, 60, 60))):
                down, right = int((x if flip else y) * height), int((y if flip else x) * width)
                image[max(0, down - 2) : down + 2, max(0, right - 2) : right + 2] = colour
            yield image

    def all_frames(self, cameras: Sequence[str], size: tuple[int, int]) -> np.ndarray:
        """Every frame, (N, K, H, W, 3)."""
        videos = [
            np.concatenate([np.stack(list(self.video(e, camera, size=size))) for e in range(self.num_episodes)])
            for camera in cameras
        ]
        return np.stack(videos, axis=1)
