"""LeRobot reads our table of progress and weighs the frames as we do; `make oracle` builds its environment."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from exported_dataset import opened, run_export, whole
from rewarded import publish_rewards

from robolift import storage

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-oracle/bin/python"
LOOKAHEAD = 5

pytestmark = pytest.mark.oracle


def weighed_by_lerobot(progress: Path, num_frames: int, out: Path) -> np.ndarray:
    script = str(ROOT / "tests/oracle/lerobot_rabc.py")
    done = subprocess.run(
        [str(PYTHON), script, str(progress), str(LOOKAHEAD), str(num_frames), str(out)],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return np.load(out, allow_pickle=False)


@pytest.mark.parametrize("unknown", [0, 30], ids=["all labelled", "some unknown"])
def test_the_weights_are_lerobots(unknown, dataset, tmp_path):
    if not PYTHON.exists():
        pytest.skip("no LeRobot environment; run make oracle")
    rng = np.random.default_rng(unknown)
    count = dataset.counts["frames"]
    progress = np.clip(dataset.table("frames").column("frame_index").to_numpy() / 60 + rng.normal(0, 0.05, count), 0, 1)
    labels = progress.astype(np.float32).tolist()
    for row in rng.choice(count, unknown, replace=False):
        labels[row] = None
    root = str(tmp_path)
    made = publish_rewards(root, dataset, progress=labels)
    config = {"columns": ["lerobot_rewards", "rabc_weights"], "lookahead": LOOKAHEAD, "unlabelled": "nan"}
    exported = run_export({"dataset": dataset.uri, "rewards": made.uri}, root, **config)
    ours = whole(opened(exported), "rabc_weight").astype(np.float64)

    path = storage.local_path(exported.uri) / "sarm_progress.parquet"
    theirs = weighed_by_lerobot(path, count, tmp_path / "weights.npy")
    # All three branches of the rule are met: full, none, and between.
    assert {0.0, 1.0} < set(ours.tolist())
    np.testing.assert_allclose(theirs, ours * count / ours.sum(), rtol=1e-4, atol=1e-5)
