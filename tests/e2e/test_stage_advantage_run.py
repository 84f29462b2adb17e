"""`pipeline.py run stage_advantage`: on episodes of the simulator, and on one's own datasets, annotated and not."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import synthetic

from robolift import manifest, storage
from robolift.data.dataset import Dataset

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(900)  # twenty processes, each of which imports a library of its own
STATE = ["observation.state", "observation.environment_state"]
RECORD = {"num_demos": 2, "num_autonomous": 3, "num_takeovers": 1, "cameras": [], "max_frames": 30, "num_workers": 1}
SMALL = {
    "train_value": {"cameras": [], "state_keys": STATE, "steps": 40, "warmup_steps": 4, "batch_size": 32},
    "train_policy": {"vision": "none", "state_keys": STATE, "objective": "regression", "steps": 10, "batch_size": 32},
}


def _run(parameters: dict, folder: Path) -> tuple[subprocess.CompletedProcess, dict[str, list[str]]]:
    """Run the pipeline; return the process and the addresses of its outputs by stage."""
    params = folder / "params.yaml"
    params.write_text(json.dumps({"output_root": str(folder / "runs"), "num_shards": 1, "lookahead": 5, **parameters}))
    done = subprocess.run(
        [sys.executable, "pipeline.py", "run", "stage_advantage", "--params", str(params), "--name", "test"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env=dict(os.environ),
        timeout=800,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    stages = json.loads((folder / "runs" / "logs" / "test" / "timings.json").read_text())["stages"]
    return done, {name: [s["uri"] for s in stages if s["stage"] == name] for name in {s["stage"] for s in stages}}


def _summary(made: dict[str, list[str]]) -> dict:
    return storage.read_json(storage.join(made["write_report"][0], "summary.json"))


def _labels(made: dict[str, list[str]]) -> dict[str, manifest.Manifest]:
    """Return the two label sets by their source."""
    return {found.config["source"]: found for found in map(manifest.load, made["label_advantage"])}


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    stages = {**SMALL, "simulate_episodes": RECORD, "evaluate_policy": {"num_episodes": 2, "num_workers": 1}}
    new_stages = {"simulate_episodes": {"num_demos": 0, "num_autonomous": 4}}
    parameters = {"num_task_stages": 2, "stages": stages, "new_stages": new_stages}
    return _run(parameters, tmp_path_factory.mktemp("simulated"))


def test_the_estimator_learns_annotated_progress_and_labels_new_episodes(simulated):
    _, made = simulated
    labels = _labels(made)
    annotated, estimated = labels["progress"], labels["absolute_advantage"]
    first, second = annotated.parent("dataset"), estimated.parent("dataset")
    assert (first.counts["episodes"], second.counts["episodes"]) == (6, 5)
    assert "values" not in annotated.inputs
    (checkpoint,) = (manifest.load(uri) for uri in made["train_value"])
    assert checkpoint.config["head"] == "relative"
    assert checkpoint.parent("dataset").digest == first.digest
    assert "targets" not in checkpoint.inputs
    assert estimated.parent("values").parent("shards").parent("checkpoint").digest == checkpoint.digest
    assert estimated.config["stage_progress_column"] == "value"
    # The two recordings share no scene.
    seeds = [Dataset.open(dataset).simulator["seeds"] for dataset in (first, second)]
    assert seeds[0][0] + seeds[0][1] <= seeds[1][0]


def test_both_policies_learn_from_the_same_statistics(simulated):
    _, made = simulated
    policies = [manifest.load(uri) for uri in made["train_policy"]]
    assert sorted(policy.config["variant"] for policy in policies) == ["advantage", "plain"]
    (norm_stats,) = made["compute_norm_stats"]
    assert {policy.parent("norm_stats").uri for policy in policies} == {norm_stats}
    assert manifest.load(norm_stats).config["state_keys"] == STATE


def test_the_report_says_what_was_measured(simulated):
    done, made = simulated
    summary = _summary(made)
    assert {row["name"] for row in summary["success"]} == {"plain", "advantage/positive"}
    assert set(summary["estimator"]) == {"labelled", "new"}
    assert summary["estimator"]["new"]["episodes"] == 5
    assert summary["estimator"]["new"]["stage_accuracy"] is not None
    assert set(summary["labelled"]["cuts"])  # the dry statistics of the annotated labels
    assert summary["headline"] in done.stdout


def test_it_runs_on_one_s_own_datasets_and_the_new_one_needs_no_annotation(tmp_path):
    synthetic.write_recording(tmp_path / "labelled", version="v2.1", cameras=(synthetic.TOPVIEW,), frames=16)
    synthetic.write_recording(
        tmp_path / "new", cameras=(synthetic.TOPVIEW,), frames=16, seed=1, omit=("progress_gt", "stage_progress_gt")
    )
    before = {path: storage.sha256_file(path) for path in sorted(tmp_path.rglob("*")) if path.is_file()}
    value = {"steps": 6, "warmup_steps": 2, "batch_size": 8, "image_size": [32, 32]}
    stages = {"train_value": value, "train_policy": {"steps": 6, "batch_size": 16, "objective": "regression"}}
    own = {"labelled_uri": str(tmp_path / "labelled"), "new_uri": str(tmp_path / "new"), "head": "single"}
    _, made = _run({**own, "stages": stages}, tmp_path)

    summary = _summary(made)
    assert list(summary["estimator"]) == ["labelled"]
    assert summary["offline"]
    assert manifest.load(made["train_value"][0]).config["head"] == "single"
    columns = Dataset.open(_labels(made)["absolute_advantage"].parent("dataset")).features
    assert "stage_progress_gt" not in columns
    assert {path: storage.sha256_file(path) for path in before} == before
