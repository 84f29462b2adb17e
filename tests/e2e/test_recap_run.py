"""`pipeline.py run recap`: the compiled graph on this machine, on data that our simulator did not make."""

import json
import os
import subprocess
import sys
from pathlib import Path

import fsspec
import pytest

from robolift import manifest, storage
from robolift.data.lerobot import LeRobotReader

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(900)  # a dozen processes, each of which imports a library of its own
FIXTURES = ROOT / "tests" / "fixtures"
OUTCOMES = "episode_index,outcome\n0,success\n1,failure\n2,success\n3,failure\n"
SMALL = {
    "train_value": {"steps": 6, "warmup_steps": 2, "batch_size": 8, "image_size": [32, 32], "eval_every": 3},
    "train_policy": {"steps": 6, "batch_size": 16, "save_every": 3},
}


def _run(parameters: dict, tmp_path: Path, **env: str) -> subprocess.CompletedProcess:
    params = tmp_path / "params.yaml"
    params.write_text(json.dumps(parameters))  # JSON is YAML
    return subprocess.run(
        [sys.executable, "pipeline.py", "run", "recap", "--params", str(params), "--name", "test"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **env},
        timeout=800,
    )


def _parameters(dataset_uri: str, outcomes_uri: str, output_root: str) -> dict:
    imported = {"outcome_uri": outcomes_uri}
    return {
        "dataset_uri": dataset_uri,
        "output_root": output_root,
        "lookahead": 3,
        "baselines": ["plain"],
        "num_shards": 2,
        "stages": {**SMALL, "import_dataset": imported},
    }


def _folder_digest(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): storage.sha256_file(p) for p in sorted(folder.rglob("*")) if p.is_file()}


def test_recap_runs_on_a_dataset_that_lerobot_wrote_and_reuses_everything_the_second_time(tmp_path):
    dataset = FIXTURES / "lerobot_v30"
    before = _folder_digest(dataset)
    outcomes = tmp_path / "outcomes.csv"
    outcomes.write_text(OUTCOMES)
    root = tmp_path / "runs"
    parameters = _parameters(str(dataset), str(outcomes), str(root))

    first = _run(parameters, tmp_path)
    assert first.returncode == 0, first.stdout[-3000:] + first.stderr[-3000:]
    report = next(root.glob("write_report/*/report.html"))
    assert str(report) in first.stdout
    finished = _folder_digest(root / "train_policy")
    assert _folder_digest(dataset) == before

    second = _run(parameters, tmp_path)
    assert second.returncode == 0
    timings = json.loads((root / "logs" / "test" / "timings.json").read_text())
    assert {stage["reused"] for stage in timings["stages"]} == {True}
    assert _folder_digest(root / "train_policy") == finished

    exported = next(root.glob("export_dataset/*/dataset"))
    reader = LeRobotReader.open(str(exported))
    assert sum(episode.length for episode in reader.episodes) == 43


def test_recap_runs_from_and_to_an_object_store(tmp_path, s3):
    source = FIXTURES / "lerobot_v21"
    fs = fsspec.filesystem("s3")
    fs.put(str(source), f"{s3}/fixture", recursive=True)
    storage.write_bytes(f"{s3}/outcomes.csv", OUTCOMES.encode())

    done = _run(_parameters(f"{s3}/fixture", f"{s3}/outcomes.csv", f"{s3}/runs"), tmp_path)

    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (report,) = [name for name, _ in storage.list_files(f"{s3}/runs/write_report") if name.endswith("report.html")]
    finished = manifest.load(f"{s3}/runs/write_report/{report.split('/')[0]}")
    manifest.verify(finished)


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        ({"dataset_uri": "/nowhere/at/all"}, 65, "no LeRobot dataset"),
        ({"stages": {}}, 65, "outcome"),
    ],
)
def test_a_run_on_bad_data_ends_with_the_data_s_exit_code_and_says_why(tmp_path, change, code, message):
    parameters = {**_parameters(str(FIXTURES / "lerobot_v30"), "", str(tmp_path / "runs")), **change}
    done = _run(parameters, tmp_path)
    assert done.returncode == code, done.stdout[-2000:] + done.stderr[-2000:]
    assert message in done.stderr
