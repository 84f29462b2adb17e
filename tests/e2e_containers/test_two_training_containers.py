"""The value model trained by two containers, with the command and environment of the PyTorchJob's manifest."""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest
import synthetic
from container_images import image_name, s3_environment
from docker_daemon import SBIN
from training_pods import Pods

from robolift import manifest, storage
from robolift.launch import pytorchjob
from robolift.launch.spec import JobSpec, Launch, Placement, job_labels, job_name
from robolift.manifest import Plan
from robolift.stages import remote
from robolift.stages.stage import execute, load_inputs, parse_config, plan

STAGE = "train_value"
BRIDGE = "rl-training"
CONFIG = {
    "num_processes": 2,
    "cameras": [],
    "steps": 400,
    "warmup_steps": 10,
    "batch_size": 16,
    "save_every": 20,
    "eval_every": 200,
    "log_every": 50,
}
END_S = 600.0
KILLED, TERMINATED = 137, 143


@pytest.fixture
def network(daemon) -> Iterator[Any]:
    """A network of its own, on which containers have addresses and names."""
    options = {"com.docker.network.bridge.name": BRIDGE}
    made = daemon.client.networks.create("robolift-training", driver="bridge", options=options)
    made.reload()
    # Another daemon on this machine may have told the kernel to forward nothing but its own.
    rule = ["FORWARD", "-i", BRIDGE, "-o", BRIDGE, "-j", "ACCEPT"]
    with_path = {**os.environ, "PATH": f"{os.environ['PATH']}:{SBIN}"}
    subprocess.run(["iptables", "-w", "-I", *rule], check=True, env=with_path)
    try:
        yield made
    finally:
        subprocess.run(["iptables", "-w", "-D", *rule], check=True, env=with_path)
        made.remove()


@pytest.fixture
def inputs(s3_bucket, tmp_path) -> dict[str, str]:
    """A dataset and its targets in the store, where every container reaches them."""
    import fsspec

    synthetic.write_recording(tmp_path / "square")
    fsspec.filesystem("s3").put(str(tmp_path / "square"), f"{s3_bucket}/square", recursive=True)
    dataset = execute("import_dataset", {"dataset_uri": f"{s3_bucket}/square"}, {}, f"{s3_bucket}/given")
    targets = execute("label_returns", {}, {"dataset": dataset.uri}, f"{s3_bucket}/given")
    return {"dataset": dataset.uri, "targets": targets.uri}


def _job(root: str, inputs: dict[str, str], environment: dict[str, str]) -> tuple[Plan, dict[str, Any]]:
    """Return what the launcher would create for this output, and write the job's file as it does."""
    config, loaded = parse_config(STAGE, CONFIG), load_inputs(STAGE, inputs)
    planned = plan(STAGE, config, loaded, root)
    launch = Launch(
        backend="pytorchjob",
        image=image_name("torch"),
        placement=Placement(pool="cpu", node_selector={}, tolerations=[]),
        cpu="1",
        memory="2Gi",
        shared_memory="256Mi",
        active_deadline_s=3600,
        ttl_s=3600,
        service_account="robolift-trainer",
        env=[{"name": name, "value": value} for name, value in environment.items()],
    )
    remote.write_job(planned, CONFIG, loaded)
    spec = JobSpec(
        name=job_name("run", STAGE, planned.digest),
        namespace="default",
        stage=STAGE,
        command=(*remote.ENTRY, STAGE, "--config", storage.join(planned.work_uri, remote.JOB_FILE)),
        nodes=2,
        gpus=0,
        launch=launch,
        labels=job_labels(stage=STAGE, run_id="run", workflow=""),
    )
    return planned, pytorchjob.build(spec)


def _saved_step(planned: Plan) -> int:
    latest = storage.join(planned.work_uri, "latest.json")
    return int(storage.read_json(latest)["step"]) if storage.exists(latest) else 0


def _wait_for_step(planned: Plan, beyond: int, pods: Pods) -> int:
    """Wait until a state beyond a step is saved, and return its step."""
    deadline = time.monotonic() + END_S
    while time.monotonic() < deadline:
        if (step := _saved_step(planned)) > beyond:
            return step
        assert pods.running(), pods.logs()
        time.sleep(0.2)
    raise AssertionError(f"no state beyond step {beyond}\n{pods.logs()}")


def _weights(planned: Plan) -> str:
    finished = planned.finished()
    assert finished is not None
    manifest.verify(finished)
    return hashlib.sha256(storage.read_bytes(storage.join(finished.uri, "model.safetensors"))).hexdigest()


def test_two_containers_train_one_is_killed_and_the_resumed_run_has_the_same_weights(
    daemon, network, inputs, s3_bucket, s3_port
):
    gateway = network.attrs["IPAM"]["Config"][0]["Gateway"]
    environment = {"OMP_NUM_THREADS": "1", **s3_environment(s3_port, gateway)}

    planned, job = _job(f"{s3_bucket}/undisturbed", inputs, environment)
    with Pods(daemon.client, network, job) as pods:
        first, second = pods.addresses()
        assert first != second
        assert pods.exit_codes(END_S) == [0, 0], pods.logs()
    undisturbed = _weights(planned)

    planned, job = _job(f"{s3_bucket}/disturbed", inputs, environment)
    with Pods(daemon.client, network, job) as pods:
        _wait_for_step(planned, 0, pods)
        pods.containers[1].kill("SIGTERM")  # what a node that is taken away gives
        assert pods.exit_codes(END_S) == [TERMINATED, TERMINATED], pods.logs()
    stopped_after = _saved_step(planned)
    with Pods(daemon.client, network, job) as pods:
        killed_after = _wait_for_step(planned, stopped_after, pods)
        pods.containers[1].kill("SIGKILL")
        assert pods.exit_codes(END_S) == [TERMINATED, KILLED], pods.logs()
    assert 0 < stopped_after < killed_after < CONFIG["steps"]
    assert planned.finished() is None
    with Pods(daemon.client, network, job) as pods:
        assert pods.exit_codes(END_S) == [0, 0], pods.logs()
    assert _weights(planned) == undisturbed
