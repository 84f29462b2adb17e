"""Runs LeRobot itself; started with the interpreter of .venv-oracle, which has nothing of Robolift.

    lerobot_run.py read ROOT OUT.npz         every frame of a dataset, as LeRobot's loader gives it
    lerobot_run.py write ROOT EXPECTED.json  a small dataset, as LeRobot's recorder writes it, and what its loader then
                                             reads from it; this is how tests/fixtures/lerobot_v21 and _v30 were made

With PYTHONPATH=.venv-oracle/v21 it is LeRobot 0.3.3 (v2.1), without 0.4.4 (v3.0).
"""

import json
import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"

import torch

_register_fake = torch.library.register_fake


def _register_known(name, *args, **kwargs):
    # torchvision from PyPI is built for CUDA: on CPU its own operators are absent, and nothing here needs them.
    if isinstance(name, str) and name.startswith("torchvision::"):
        return lambda function: function
    return _register_fake(name, *args, **kwargs)


torch.library.register_fake = _register_known
import torchvision  # noqa: E402, F401

torch.library.register_fake = _register_fake

import numpy as np  # noqa: E402
from lerobot.datasets import lerobot_dataset as module  # noqa: E402
from lerobot.datasets.lerobot_dataset import LeRobotDataset  # noqa: E402

FPS = 20
CAMERAS = {"observation.images.top": (64, 96), "observation.images.wrist": (64, 64)}
TASKS = ("pick up the puck", "open the drawer")
LENGTHS = (12, 9, 15, 7)
FEATURES = {
    "observation.state": {"dtype": "float32", "shape": (3,), "names": ["x", "y", "z"]},
    "action": {"dtype": "float32", "shape": (2,), "names": ["a", "b"]},
    "intervention": {"dtype": "int64", "shape": (1,), "names": None},
    "control_mode": {"dtype": "string", "shape": (1,), "names": None},
    **{
        camera: {"dtype": "video", "shape": (*size, 3), "names": ["height", "width", "channels"]}
        for camera, size in CAMERAS.items()
    },
}


def frame_image(episode: int, frame: int, size: tuple[int, int]) -> np.ndarray:
    """A ramp that tells episode and frame apart by colour and by the place of a bar."""
    height, width = size
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = 30 + 50 * episode
    image[..., 1] = np.linspace(0, 200, width, dtype=np.uint8)[None, :]
    left = 8 + 4 * frame % (width - 16)
    image[:, left : left + 8, 2] = 220
    return image


def frame_values(episode: int, frame: int) -> dict:
    return {
        "observation.state": np.array([episode, frame, frame / 10], np.float32),
        "action": np.array([frame - episode, 0.5], np.float32),
        "intervention": np.array([int(frame % 3 == 0)], np.int64),
        "control_mode": "correcting" if frame % 3 == 0 else "autonomous",
    }


def write(root: Path, expected: Path) -> None:
    dataset = LeRobotDataset.create("robolift/fixture", fps=FPS, features=FEATURES, root=root, robot_type="sawyer")
    if V30:
        # So small that episodes are spread over several files and chunks.
        dataset.meta.update_chunk_settings(chunks_size=2, data_files_size_in_mb=0.003, video_files_size_in_mb=0.0035)
    for episode, length in enumerate(LENGTHS):
        for frame in range(length):
            images = {camera: frame_image(episode, frame, size) for camera, size in CAMERAS.items()}
            values = {**frame_values(episode, frame), **images}
            task = TASKS[episode % 2]
            if V30:
                dataset.add_frame({**values, "task": task})
            else:
                dataset.add_frame(values, task=task)
        dataset.save_episode()
    if V30:
        dataset.finalize()
    frames = load(root)[1]
    document = {}
    for key, values in frames.items():
        if values.ndim == 4:  # images: the mean colour of each tile of a 4x4 grid
            count, height, width, _ = values.shape
            values = values.reshape(count, 4, height // 4, 4, width // 4, 3).mean(axis=(2, 4)).round(2)
        document[key] = values.tolist()
    expected.write_text(json.dumps(document) + "\n")


def load(root: Path) -> tuple[LeRobotDataset, dict[str, np.ndarray]]:
    dataset = LeRobotDataset("robolift/checked", root=root, video_backend="torchcodec")
    columns: dict[str, list] = {}
    for index in range(len(dataset)):
        for key, value in dataset[index].items():
            if key in dataset.meta.video_keys:
                value = (value.permute(1, 2, 0) * 255).round().to(torch.uint8)
            columns.setdefault(key, []).append(value.numpy() if isinstance(value, torch.Tensor) else value)
    return dataset, {key: np.stack(values) for key, values in columns.items()}


def read(root: Path, out: Path) -> None:
    dataset, frames = load(root)
    about = {
        "fps": dataset.fps,
        "robot_type": dataset.meta.robot_type,
        "episodes": dataset.num_episodes,
        "frames": dataset.num_frames,
        "cameras": sorted(dataset.meta.video_keys),
        "stats": {
            name: {key: np.asarray(value).tolist() for key, value in found.items()}
            for name, found in dataset.meta.stats.items()
        },
    }
    np.savez(out, about=json.dumps(about), **frames)


if __name__ == "__main__":
    V30 = module.CODEBASE_VERSION == "v3.0"
    command, root, target = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    {"write": write, "read": read}[command](root, target)
