"""Jobs to try the builders and the watcher on; run as a program it launches one and ends as a launcher would."""

from __future__ import annotations

import dataclasses
import sys

from robolift.errors import RoboliftError
from robolift.launch.cluster import Cluster
from robolift.launch.spec import JobSpec, Launch, Placement, job_labels, job_name
from robolift.launch.watch import Patience, run_job

GPU_POOL = Placement(
    pool="gpu",
    node_selector={"robolift.io/pool": "gpu"},
    tolerations=[
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
        {"key": "robolift.io/pool", "operator": "Equal", "value": "gpu", "effect": "NoSchedule"},
    ],
    gpu_resource="nvidia.com/gpu",
    gpus=8,
)
LAUNCH = Launch(
    backend="pytorchjob",
    image="registry.example/robolift-torch@sha256:" + "0" * 64,
    placement=GPU_POOL,
    cpu="16",
    memory="128Gi",
    shared_memory="16Gi",
    active_deadline_s=3600,
    ttl_s=600,
    service_account="robolift-trainer",
    processes_per_node=4,
)
NAME = job_name("run-1", "train_value", "0123456789abcdef")
SPEC = JobSpec(
    name=NAME,
    namespace="team",
    stage="train_value",
    command=("python", "-m", "robolift.launch.entry", "train_value", "--config", "s3://b/runs/_work/job.json"),
    nodes=3,
    gpus=4,
    launch=LAUNCH,
    labels=job_labels(stage="train_value", run_id="run-1", workflow="recap-x1"),
    owner={"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": "recap-x1", "uid": "u-1"},
)
QUICK = Patience(watch=1.0, deletion=60.0, slack=0.0, log=60.0, log_pause=0.02)


def spec(backend: str = "pytorchjob", *, nodes: int = 3, queue: str = "", **launch: object) -> JobSpec:
    """Return :data:`SPEC` for a backend, with some of its launch settings changed."""
    placement = dataclasses.replace(GPU_POOL, queue=queue)
    changed = dataclasses.replace(LAUNCH, backend=backend, placement=placement, **launch)
    return dataclasses.replace(SPEC, launch=changed, nodes=nodes)


def cluster(host: str, **settings: float) -> Cluster:
    """Return the namespace of :data:`SPEC` on an API server, its client without retries of its own."""
    from kubernetes import client

    configuration = client.Configuration(host=host)
    configuration.retries = 0
    settings = {"first_pause_s": 0.01, "patience_s": 60.0, **settings}
    return Cluster(client.ApiClient(configuration), SPEC.namespace, **settings)


def main(host: str, backend: str) -> int:
    """Launch the job and return the step's exit code."""
    try:
        run_job(cluster(host), spec(backend), patience=QUICK)
    except RoboliftError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
