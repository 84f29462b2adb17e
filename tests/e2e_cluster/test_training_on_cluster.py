"""The value model trained by the launcher in two pods, data in an object store: what two processes here train."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import synthetic
from cluster_tools import Tool, wait_until
from job_operator import Operator
from kubernetes import config

from robolift import storage
from robolift.launch.cluster import Cluster
from robolift.manifest import Manifest
from robolift.stages import remote
from robolift.stages.stage import execute

pytestmark = pytest.mark.cluster

POOL = "robolift-e2e"
CONFIG = {
    "head": "single",
    "cameras": [],
    "state_keys": [synthetic.STATE],
    "steps": 40,
    "warmup_steps": 2,
    "batch_size": 8,
    "eval_every": 20,
    "save_every": 10,
    "val_fraction": 0.25,
    "num_processes": 2,
}
KEY = "e2e"


@pytest.fixture(scope="module")
def store(host: str) -> Iterator[str]:
    """An S3 server on this machine, at the address by which pods reach it."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "0.0.0.0", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    address = f"http://{host}:{port}"
    told = {"AWS_ENDPOINT_URL": address, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": KEY}
    before = {name: os.environ.get(name) for name in told}
    os.environ.update(told)
    wait_until(lambda: listens(port), "the S3 server", 60)
    yield address
    server.terminate()
    server.wait()
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def dataset(store: str, tmp_path_factory: Any) -> Manifest:
    recording = tmp_path_factory.mktemp("recording") / "data"
    synthetic.write_recording(recording, episodes=8)
    filesystem, _ = storage.filesystem("s3://robolift-e2e")
    filesystem.mkdir("robolift-e2e")
    for path in sorted(recording.rglob("*")):
        if path.is_file():
            name = f"s3://robolift-e2e/recording/{path.relative_to(recording)}"
            storage.write_bytes(name, path.read_bytes())
    return execute("import_dataset", {"dataset_uri": "s3://robolift-e2e/recording"}, {}, "s3://robolift-e2e/runs")


def contents(found: Manifest) -> dict[str, bytes]:
    names = [name for name, _ in storage.list_files(found.uri) if name != "manifest.json"]
    return {name: storage.read_bytes(found.file(name)) for name in names}


def test_two_pods_train_what_two_processes_here_do(
    kubectl: Tool,
    kubeconfig: str,
    namespace: str,
    images: dict[str, str],
    release: list[str],
    operator: Operator | None,
    store: str,
    dataset: Manifest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    node = kubectl("get", "nodes", "-o", "name").split()[0]
    kubectl("label", node, f"robolift.io/pool={POOL}", "--overwrite")
    site = tmp_path / "site.yaml"
    site.write_text(
        f"""
pools: [{{name: cpu}}, {{name: gpu, gpus: 1}}, {{name: {POOL}, taint: false}}]
trainer:
  pool: {POOL}
  sharedMemory: 64Mi
  env:
    - {{name: AWS_ENDPOINT_URL, value: "{store}"}}
    - {{name: AWS_ACCESS_KEY_ID, value: {KEY}}}
    - {{name: AWS_SECRET_ACCESS_KEY, value: {KEY}}}
sizes: {{gpu.large: {{cpu: 200m, memory: 1536Mi}}}}
"""
    )
    monkeypatch.setenv("ROBOLIFT_VALUES", str(site))
    monkeypatch.setenv("ROBOLIFT_RUN_ID", "training-e2e")
    from components._launch import launch

    told = {**launch("train_value"), "image": images["torch"]}
    api = config.new_client_from_config(kubeconfig)
    api.set_default_header("Impersonate-User", f"system:serviceaccount:{namespace}:robolift-launcher")
    inputs = {"dataset": dataset.uri}
    cluster = Cluster(api, namespace)
    found = remote.execute("train_value", CONFIG, inputs, "s3://robolift-e2e/runs", launch=told, cluster=cluster)
    log = capsys.readouterr().out
    assert "held out" in log  # of the master, streamed while it trained
    here = execute("train_value", CONFIG, inputs, str(tmp_path / "here"))
    assert here.digest == found.digest
    assert contents(here) == contents(found)
    again = remote.execute("train_value", CONFIG, inputs, "s3://robolift-e2e/runs", launch=told, cluster=cluster)
    assert again.uri == found.uri
    assert "launched" not in capsys.readouterr().err
    kubectl("label", node, "robolift.io/pool-")
