"""What we export, read by LeRobot's own loaders; `make oracle` builds their environment."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import synthetic
from rewarded import publish_rewards

from robolift import storage
from robolift.data.dataset import Dataset
from robolift.data.lerobot import LeRobotReader
from robolift.manifest import Manifest, Output, Plan
from robolift.schema import Kind
from robolift.stages.stage import execute

ROOT = Path(__file__).parents[2]
ENVIRONMENT = ROOT / ".venv-oracle"
REWARDS = ["next.reward", "next.success", "progress", "tri"]
PROMPTS = [synthetic.TASK, f"{synthetic.TASK}, Advantage: negative", f"{synthetic.TASK}, Advantage: positive"]

pytestmark = pytest.mark.oracle


def read_by_lerobot(folder: Path, version: str, out: Path) -> dict[str, np.ndarray]:
    paths = str(ENVIRONMENT / "v21") if version == "v2.1" else ""
    command = [
        str(ENVIRONMENT / "bin/python"),
        str(ROOT / "tests/oracle/lerobot_run.py"),
        "read",
        str(folder),
        str(out),
    ]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    with np.load(out, allow_pickle=False) as found:
        return dict(found)


def publish(root: str, stage: str, kind: Kind, dataset: Manifest, name: str, table: dict, documents: dict) -> Manifest:
    plan = Plan(
        stage=stage, kind=kind, root=root, config={}, inputs={"dataset": [dataset]}, code="c0de", digest=dataset.digest
    )
    output = Output(plan)
    output.write_table(name, table)
    for file, document in documents.items():
        output.write_json(file, document)
    return output.publish({"frames": 1})


def learned(root: str, dataset: Manifest) -> dict[str, str]:
    frames = dataset.table("frames")
    count = frames.num_rows
    keys = {name: frames.column(name).to_numpy() for name in ("episode_index", "frame_index")}
    ramp = -np.arange(count, dtype=np.float32) / count
    labels = {
        **keys,
        "advantage": ramp,
        "valid": [True] * count,
        "advantage_label": ["positive" if n % 2 else "negative" for n in range(count)],
        "slice": [None] * count,
        "reason": ["threshold"] * count,
        "group": ["all"] * count,
        "weight": -ramp,
        "prompt_index": [1 + n % 2 for n in range(count)],
    }
    targets = publish(
        root, "label_returns", Kind.TARGETS, dataset, "targets", {**keys, "value_target": ramp, "reward": ramp}, {}
    )
    labelled = publish(
        root, "label_advantage", Kind.LABELS, dataset, "labels", labels, {"prompts.json": {"prompts": PROMPTS}}
    )
    rewards = publish_rewards(
        root,
        dataset,
        reward=ramp.tolist(),
        progress=[None, *(-ramp[1:]).tolist()],
        success_prob=[1.0] * count,
        tri=[n % 3 - 1 for n in range(count)],
    )
    return {"dataset": dataset.uri, "targets": targets.uri, "labels": labelled.uri, "rewards": rewards.uri}


@pytest.mark.parametrize(
    "columns", [["pistar", "weights", "next_reward"], ["kai0"], ["rewards"]], ids=["pistar", "kai0", "rewards"]
)
@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
@pytest.mark.parametrize("source", ["v2.1", "v3.0"])
def test_lerobot_reads_what_we_export(source, version, columns, tmp_path):
    if not (ENVIRONMENT / "bin/python").exists():
        pytest.skip("no LeRobot environment; run make oracle")
    root = str(tmp_path)
    synthetic.write_recording(tmp_path / "recording", episodes=4, version=source, size=64)
    dataset = execute("import_dataset", {"dataset_uri": str(tmp_path / "recording")}, {}, root)
    config = {"columns": columns, "version": version, "reward_columns": REWARDS, "unlabelled": "nan"}
    exported = execute("export_dataset", config, learned(root, dataset), root)
    folder = storage.local_path(exported.uri) / "dataset"
    found = read_by_lerobot(folder, version, tmp_path / "found.npz")
    opened, count = Dataset.open(dataset), dataset.counts["frames"]

    about = json.loads(str(found["about"]))
    assert (about["episodes"], about["frames"]) == (4, count)
    np.testing.assert_array_equal(found["action"], opened.column("action"))
    np.testing.assert_array_equal(found["control_mode"], opened.column("control_mode").astype(str))
    ramp = -np.arange(count, dtype=np.float32) / count
    if columns == ["kai0"]:
        assert found["task"].tolist() == [PROMPTS[1 + n % 2] for n in range(count)]
        np.testing.assert_array_equal(found["task_index"], 1 + np.arange(count) % 2)
    elif columns == ["rewards"]:
        np.testing.assert_array_equal(found["next.reward"], ramp)
        np.testing.assert_array_equal(found["progress"], np.float32([np.nan, *-ramp[1:]]))
        # Episode 2 is recorded as a failure, which counts before the model's success probability of 1.
        assert np.flatnonzero(found["next.success"]).tolist() == [5, 21, 60]
        np.testing.assert_array_equal(found["tri"], np.arange(count) % 3 - 1)
        assert about["stats"]["progress"]["count"] == [count - 1]
    else:
        assert set(found["task"].tolist()) == {synthetic.TASK}
        np.testing.assert_array_equal(found["adv_ind"] == "positive", np.arange(count) % 2 == 1)
        np.testing.assert_array_equal(found["value_label"], ramp)
        np.testing.assert_array_equal(found["weight"], -ramp)
        np.testing.assert_array_equal(found["next.reward"], ramp)
        assert about["stats"]["weight"]["max"] == [pytest.approx(float(-ramp[-1]))]
    reader = LeRobotReader.open(str(folder))
    for camera in opened.cameras:
        ours = np.stack([frame for episode in range(4) for frame in reader.video(episode, camera)])
        assert np.abs(found[camera].astype(int) - ours).mean() < 2
