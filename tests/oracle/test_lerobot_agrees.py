"""LeRobot's own code as the referee: it reads what we write, we read what it writes, and both see the same.

Needs the environment that ``tests/oracle/setup.sh`` builds; ``make oracle`` does both.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robolift.data.lerobot import LeRobotReader
from robolift.data.lerobot_writer import LeRobotWriter
from robolift.data.video import AV1, H264, Codec

ROOT = Path(__file__).parents[2]
ENVIRONMENT = ROOT / ".venv-oracle"
VERSIONS = ("v2.1", "v3.0")
sys.path.insert(0, str(ROOT / "tests" / "unit"))

from coded_dataset import CAMERAS, FEATURES, FPS, LENGTHS, TASKS, columns, write_dataset  # noqa: E402

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.skipif(not (ENVIRONMENT / ".finished").exists(), reason="run tests/oracle/setup.sh first"),
]


def lerobot(version: str, command: str, root: Path, target: Path) -> None:
    """Run LeRobot 0.4.4 (v3.0) or 0.3.3 (v2.1) in its own environment, with its cache beside ``target``."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "COV"))}
    environment |= {"OMP_NUM_THREADS": "1", "SVT_LOG": "1", "HF_HOME": str(target.parent / "huggingface")}
    if version == "v2.1":
        environment["PYTHONPATH"] = str(ENVIRONMENT / "v21")
    words = [ENVIRONMENT / "bin" / "python", ROOT / "tests" / "oracle" / "lerobot_run.py", command, root, target]
    done = subprocess.run([str(word) for word in words], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def read_with_lerobot(version: str, root: Path, out: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    lerobot(version, "read", root, out)
    with np.load(out) as found:
        frames = dict(found)
    return json.loads(str(frames.pop("about"))), frames


def assert_same_frames(reader: LeRobotReader, frames: dict[str, np.ndarray]) -> None:
    """Compare everything: numbers must be equal, pixels may differ by what two builds of a scaler may differ by."""
    tables = [reader.table(meta.index) for meta in reader.episodes]
    for name, feature in reader.features.items():
        if feature["dtype"] != "video":
            ours = np.concatenate([np.array(table.column(name).to_pylist()) for table in tables])
            theirs = frames[name].reshape(ours.shape)
            assert np.array_equal(ours.astype(theirs.dtype), theirs), name
    for camera in reader.cameras:
        images = np.concatenate([np.stack(list(reader.video(meta.index, camera))) for meta in reader.episodes])
        assert images.shape == frames[camera].shape
        assert np.abs(images.astype(int) - frames[camera]).max() <= 2, camera
    tasks = [reader.tasks[index] for table in tables for index in table.column("task_index").to_pylist()]
    assert frames["task"].tolist() == tasks


@pytest.mark.parametrize("codec", [H264, AV1], ids=lambda codec: codec.name)
@pytest.mark.parametrize("version", VERSIONS)
def test_lerobot_reads_what_we_write(tmp_path: Path, version: str, codec: Codec) -> None:
    root = write_dataset(
        tmp_path / "d",
        version,
        codec=codec,
        chunk_size=2,
        data_file_mb=0.003,
        video_file_mb=0.006,
        extra_info={"robolift": {"simulator": "metaworld"}},
    )
    about, frames = read_with_lerobot(version, root, tmp_path / "frames.npz")
    assert (about["fps"], about["robot_type"], about["episodes"], about["frames"]) == (FPS, "sawyer", 4, sum(LENGTHS))
    assert about["cameras"] == sorted(CAMERAS)
    expected = np.concatenate([columns(i, n)["observation.state"] for i, n in enumerate(LENGTHS)])
    assert np.array_equal(frames["observation.state"], expected.astype(np.float32))
    assert frames["task"].tolist() == [TASKS[i % 2] for i, n in enumerate(LENGTHS) for _ in range(n)]
    reader = LeRobotReader.open(str(root))
    assert_same_frames(reader, frames)
    stated = reader.statistics()
    assert set(about["stats"]) == set(stated)
    for name, theirs in about["stats"].items():
        for key in ("min", "max", "mean", "std", "count"):
            np.testing.assert_allclose(np.array(theirs[key], float), stated[name][key], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("version", VERSIONS)
def test_lerobot_reads_tasks_by_frame_and_copied_clips(tmp_path: Path, version: str) -> None:
    source = LeRobotReader.open(str(write_dataset(tmp_path / "s", "v3.0" if version == "v2.1" else "v2.1")))
    prompts = ["fold, Advantage: negative", "fold, Advantage: positive"]
    writer = LeRobotWriter(
        tmp_path / "d",
        fps=FPS,
        features=FEATURES,
        cameras=CAMERAS,
        robot_type="sawyer",
        version=version,
        tasks=prompts,
        video_file_mb=0.006,
    )
    per_frame = [[prompts[(episode + frame) % 2] for frame in range(n)] for episode, n in enumerate(LENGTHS)]
    for episode, length in enumerate(LENGTHS):
        clips = {camera: source.clip(episode, camera) for camera in CAMERAS}
        writer.add_episode(columns(episode, length), videos=clips, task="fold", frame_tasks=per_frame[episode])
    writer.finish()
    _, frames = read_with_lerobot(version, tmp_path / "d", tmp_path / "frames.npz")
    assert frames["task"].tolist() == [text for texts in per_frame for text in texts]
    assert_same_frames(LeRobotReader.open(str(tmp_path / "d")), frames)


@pytest.mark.parametrize("version", VERSIONS)
def test_we_read_what_lerobot_writes(tmp_path: Path, version: str) -> None:
    lerobot(version, "write", tmp_path / "d", tmp_path / "expected.json")
    _, frames = read_with_lerobot(version, tmp_path / "d", tmp_path / "frames.npz")
    reader = LeRobotReader.open(str(tmp_path / "d"))
    assert reader.version == version
    reader.check_files()
    assert_same_frames(reader, frames)
    for meta in reader.episodes:
        for camera in reader.cameras:
            reader.check_video(meta.index, camera)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_committed_fixture_is_what_lerobot_reads(tmp_path: Path, version: str) -> None:
    root = ROOT / "tests" / "fixtures" / f"lerobot_{version.replace('.', '')}"
    _, frames = read_with_lerobot(version, root, tmp_path / "frames.npz")
    assert_same_frames(LeRobotReader.open(str(root)), frames)
