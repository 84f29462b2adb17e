"""Two rounds of recap in the simulator: the second collects with the policy of the first and relabels everything."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from robolift import manifest
from robolift.data.dataset import Dataset

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(900)  # a dozen processes, each of which imports a library of its own
STATE = ["observation.state", "observation.environment_state"]
STAGES = {
    "simulate_episodes": {"num_demos": 1, "num_autonomous": 3, "num_takeovers": 1, "cameras": [], "max_frames": 30},
    "train_value": {"cameras": [], "state_keys": STATE, "steps": 10, "warmup_steps": 2, "batch_size": 32},
    "train_policy": {"vision": "none", "state_keys": STATE, "objective": "regression", "steps": 10, "batch_size": 32},
    "evaluate_policy": {"num_episodes": 2},
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("iterations")
    params = folder / "params.yaml"
    root = folder / "runs"
    params.write_text(json.dumps({"output_root": str(root), "iterations": 2, "lookahead": 4, "stages": STAGES}))
    done = subprocess.run(
        [sys.executable, "pipeline.py", "run", "recap", "--params", str(params), "--name", "test"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env=dict(os.environ),
        timeout=800,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    stages = json.loads((root / "logs" / "test" / "timings.json").read_text())["stages"]
    return {name: [s["uri"] for s in stages if s["stage"] == name] for name in {s["stage"] for s in stages}}


def test_the_second_round_acts_with_the_policy_of_the_first(finished):
    first, second = (manifest.load(uri) for uri in finished["simulate_episodes"])
    assert "policy" not in first.inputs
    assert second.parent("policy").config["variant"] == "advantage"
    assert second.parent("policy").uri in finished["train_policy"]


def test_the_second_dataset_has_the_episodes_of_both_rounds(finished):
    first, second = (Dataset.open(manifest.load(uri)) for uri in finished["import_dataset"])
    assert (first.num_episodes, second.num_episodes) == (5, 10)
    assert second.episodes.column("iteration").to_pylist() == [1] * 5 + [2] * 5
    assert second.episodes.slice(0, 5).drop(["iteration"]) == first.episodes.drop(["iteration"])


def test_each_round_has_its_report_and_the_second_tells_of_both(finished):
    reports = [manifest.load(uri) for uri in finished["write_report"]]
    assert len(reports) == 2
    summary = json.loads(Path(reports[1].uri.removeprefix("file://"), "summary.json").read_text())
    assert [row["iteration"] for row in summary["iterations"]] == [1, 2]
