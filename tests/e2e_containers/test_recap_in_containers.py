"""Every component of the compiled recap pipeline in its own image, through `file://` and through an object store."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path

import fsspec
import yaml
from container_images import ROOT, image_name, s3_environment
from docker_daemon import Daemon

from components._images import STAGE_IMAGES
from robolift import manifest, storage

FIXTURES = ROOT / "tests" / "fixtures"
OUTCOMES = "episode_index,outcome\n0,success\n1,failure\n2,success\n3,failure\n"
TRAINING = {
    "train_value": {"steps": 6, "warmup_steps": 2, "batch_size": 8, "image_size": [32, 32], "eval_every": 3},
    "train_policy": {"steps": 6, "batch_size": 16, "save_every": 3},
}
SIMULATED = {
    **TRAINING,
    "simulate_episodes": {
        "num_demos": 2,
        "num_autonomous": 3,
        "num_takeovers": 1,
        "cameras": ["topview"],
        "image_size": 32,
        "max_frames": 40,
        "num_workers": 1,
    },
    "evaluate_policy": {"num_episodes": 2, "max_frames": 20, "num_workers": 1},
}
FUNCTION = "--function_to_execute"


@dataclass
class Watcher:
    """Takes down what every container of the daemon was made of, as the daemon tells it."""

    daemon: Daemon
    seen: list[dict] = field(default_factory=list)

    def __enter__(self) -> Watcher:
        self._events = self.daemon.client.events(decode=True, filters={"type": "container", "event": "create"})
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        for event in self._events:
            self.seen.append(self.daemon.client.api.inspect_container(event["id"]))

    def __exit__(self, *_: object) -> None:
        self._events.close()
        self._thread.join(timeout=30)

    def steps(self) -> dict[str, set[str]]:
        """Return the images that each component's function ran in."""
        found: dict[str, set[str]] = {}
        for container in self.seen:
            command = container["Config"]["Cmd"]
            found.setdefault(command[command.index(FUNCTION) + 1], set()).add(container["Config"]["Image"])
        return found


def _compile(folder: Path) -> Path:
    """Compile recap with training inside its step, on the images under test."""
    values = folder / "values.yaml"
    values.write_text(yaml.safe_dump({"trainer": {"backend": "process"}, "policyTrainer": {"backend": "process"}}))
    package = folder / "recap.yaml"
    command = [sys.executable, "pipeline.py", "compile", "recap", "--output", str(package)]
    subprocess.run(command, cwd=ROOT, check=True, env={**os.environ, "ROBOLIFT_VALUES": str(values)})
    text, replaced = re.subn(
        r"(image: )\S*robolift-(\w+)[:@]\S+", lambda m: m[1] + image_name(m[2]), package.read_text()
    )
    assert replaced >= len(STAGE_IMAGES) - 2  # check_dataset aside, each component of recap names its image
    package.write_text(text)
    return package


def _run(daemon: Daemon, folder: Path, parameters: dict, environment: dict, mounts: list) -> tuple[int, str]:
    package = _compile(folder)
    job = folder / "job.json"
    job.write_text(
        json.dumps(
            {
                "package": str(package),
                "folder": str(folder),
                "parameters": parameters,
                "environment": {"OMP_NUM_THREADS": "1", **environment},
                "mounts": mounts,
            }
        )
    )
    with (folder / "run.log").open("w") as log:
        done = subprocess.run(
            [sys.executable, str(Path(__file__).parent / "run_pipeline.py"), str(job)],
            cwd=ROOT,
            env={**os.environ, "DOCKER_HOST": daemon.address, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"},
            stdout=log,
            stderr=subprocess.STDOUT,
            check=False,
        )
    return done.returncode, (folder / "run.log").read_text()


def _check_outputs(root: str, stages: set[str]) -> None:
    """Check every byte of every output: a container that is gone too soon counts as a success for KFP's runner."""
    found = {path.split("/")[0]: path for path, _ in storage.list_files(root) if path.endswith("/manifest.json")}
    assert set(found) == stages
    for path, _ in storage.list_files(root):
        if path.endswith("/manifest.json"):
            manifest.verify(manifest.load(storage.join(root, path.removesuffix("/manifest.json"))))


def _expected(*absent: str) -> dict[str, set[str]]:
    graph = next(yaml.safe_load_all((ROOT / "tests/golden/recap.yaml").read_text()))
    stages = {key.removeprefix("exec-").rstrip("-0123456789") for key in graph["deploymentSpec"]["executors"]}
    names = {stage.replace("-", "_") for stage in stages} - set(absent)
    return {name: {image_name(STAGE_IMAGES[name])} for name in names}


def test_recap_from_the_simulator_to_a_report_on_files(daemon, tmp_path):
    runs = tmp_path / "runs"
    runs.mkdir()
    os.chown(runs, 10001, 0)
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)  # pytest's folders are its user's alone
    parameters = {"output_root": f"file://{runs}", "lookahead": 5, "num_shards": 2, "stages": SIMULATED}
    with Watcher(daemon) as watcher:
        code, log = _run(daemon, tmp_path, parameters, {}, [(str(runs), "rw")])
    assert code == 0, log[-4000:]
    expected = _expected("check_dataset")
    assert watcher.steps() == expected
    for container in watcher.seen:
        assert container["HostConfig"]["ReadonlyRootfs"]
        assert container["Config"]["User"] == "10001:0"
    _check_outputs(f"file://{runs}", set(expected) - {"check_run", "plan_shards"})
    assert list(runs.glob("write_report/*/report.html"))


def test_recap_from_and_to_an_object_store(daemon, tmp_path, s3_bucket, s3_port):
    fsspec.filesystem("s3").put(str(FIXTURES / "lerobot_v21"), f"{s3_bucket}/fixture", recursive=True)
    storage.write_bytes(f"{s3_bucket}/outcomes.csv", OUTCOMES.encode())
    parameters = {
        "dataset_uri": f"{s3_bucket}/fixture",
        "output_root": f"{s3_bucket}/runs",
        "lookahead": 3,
        "stages": {**TRAINING, "import_dataset": {"outcome_uri": f"{s3_bucket}/outcomes.csv"}},
    }
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    with Watcher(daemon) as watcher:
        code, log = _run(daemon, tmp_path, parameters, s3_environment(s3_port), [])
    assert code == 0, log[-4000:]
    expected = _expected("simulate_episodes")
    assert watcher.steps() == expected
    _check_outputs(f"{s3_bucket}/runs", set(expected) - {"check_run", "check_dataset", "plan_shards"})


def test_a_step_that_refuses_its_data_ends_the_run_and_says_why(daemon, tmp_path):
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    parameters = {"dataset_uri": "/nowhere/at/all", "output_root": "/tmp/runs"}
    code, log = _run(daemon, tmp_path, parameters, {}, [])
    assert code != 0
    assert "no LeRobot dataset" in log
