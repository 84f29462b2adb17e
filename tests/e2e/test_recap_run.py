"""`pipeline.py run recap`: the compiled graph on this machine, on data that our simulator did not make."""

import json
import os
import re
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


def _bytes(uri: str) -> dict[str, bytes]:
    return {name: storage.read_bytes(f"{uri}/{name}") for name, _ in storage.list_files(uri)}


@pytest.mark.parametrize(
    ("store", "version"), [("s3", "lerobot_v21"), pytest.param("tmp_path", "lerobot_v30", marks=pytest.mark.slow)]
)
def test_recap_runs_on_a_dataset_that_lerobot_wrote_and_reuses_everything_the_second_time(
    store, version, request, tmp_path
):
    place = str(request.getfixturevalue(store))
    fsspec.filesystem("s3" if store == "s3" else "file").put(
        str(FIXTURES / version), f"{place}/fixture", recursive=True
    )
    before = _bytes(f"{place}/fixture")
    storage.write_bytes(f"{place}/outcomes.csv", OUTCOMES.encode())
    root = f"{place}/runs"
    parameters = _parameters(f"{place}/fixture", f"{place}/outcomes.csv", root)

    first = _run(parameters, tmp_path)
    assert first.returncode == 0, first.stdout[-3000:] + first.stderr[-3000:]
    (report,) = [name for name, _ in storage.list_files(f"{root}/write_report") if name.endswith("/report.html")]
    assert f"write_report/{report}" in first.stdout
    manifest.verify(manifest.load(f"{root}/write_report/{report.split('/')[0]}"))
    finished = _bytes(f"{root}/train_policy")
    assert _bytes(f"{place}/fixture") == before

    second = _run(parameters, tmp_path)
    assert second.returncode == 0
    steps = [re.findall(r"✓ (\S+) +(.+)", done.stdout) for done in (first, second)]
    assert [name for name, _ in steps[1]] == [name for name, _ in steps[0]]
    assert {how for _, how in steps[1]} == {"reused"}
    assert "reused" not in {how for _, how in steps[0]}
    assert _bytes(f"{root}/train_policy") == finished

    (exported,) = {name.split("/")[0] for name, _ in storage.list_files(f"{root}/export_dataset")}
    reader = LeRobotReader.open(f"{root}/export_dataset/{exported}/dataset")
    assert sum(episode.length for episode in reader.episodes) == 43


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        ({"stages": {}}, 65, "outcome"),
        pytest.param({"dataset_uri": "/nowhere/at/all"}, 65, "no LeRobot dataset", marks=pytest.mark.slow),
    ],
)
def test_a_run_on_bad_data_ends_with_the_data_s_exit_code_and_says_why(tmp_path, change, code, message):
    parameters = {**_parameters(str(FIXTURES / "lerobot_v30"), "", str(tmp_path / "runs")), **change}
    done = _run(parameters, tmp_path)
    assert done.returncode == code, done.stdout[-2000:] + done.stderr[-2000:]
    assert message in done.stderr
