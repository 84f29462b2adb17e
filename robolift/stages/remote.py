"""A stage as a job of its own on the cluster: what a pipeline's step does that only watches."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from robolift import storage
from robolift.errors import DataError, UsageError
from robolift.launch import cluster as clusters
from robolift.launch.cluster import RUN_ID_VARIABLE, WORKFLOW_VARIABLE, Cluster
from robolift.launch.spec import PROCESS, JobSpec, Launch, job_labels, job_name
from robolift.launch.watch import run_job
from robolift.logging import get_logger
from robolift.manifest import Manifest, Plan
from robolift.stages.stage import Inputs, StageConfig, load_inputs, parse_config, plan

JOB_FILE = "job.json"
ENTRY = ("python", "-m", "robolift.launch.entry")


def is_remote(launch: Mapping[str, Any]) -> bool:
    """Tell whether a step hands its stage to a job: never outside a cluster, where it does the work itself."""
    return launch.get("backend", PROCESS) != PROCESS and clusters.in_cluster()


def execute(
    name: str,
    config: Mapping[str, Any],
    inputs: Mapping[str, str | Sequence[str]],
    output_root: str,
    *,
    launch: Mapping[str, Any],
    cluster: Cluster | None = None,
) -> Manifest:
    """Run a stage as a job, or find that the same work is already done.

    Args:
        name: The stage.
        config: Its configuration.
        inputs: For each input name the address of an output, or several.
        output_root: Where outputs are published; the job's pods must reach it, so it can't be a local folder.
        launch: :class:`~robolift.launch.spec.Launch` as a dictionary.
        cluster: Where; the step's own by default.

    Returns:
        The manifest of the finished output.

    Raises:
        UsageError: If configuration and placement don't fit, or the cluster refuses the job.
        JobFailedError: If the job failed.
    """
    told = Launch.from_dict(launch)
    parsed, loaded = parse_config(name, config), load_inputs(name, inputs)
    planned = plan(name, parsed, loaded, output_root)
    log = get_logger("stage").bind(stage=name)
    if done := planned.finished():
        planned.sweep()
        log.info("reused", uri=done.uri)
        return done
    if storage.local_path(planned.uri):
        raise UsageError(
            f"output_root is {output_root}, a folder of this pod; expected a store, such as s3:// or gs://"
        )
    nodes, gpus = shape(name, parsed, told)
    # A cluster of its own for each call: credentials of a pod are read anew.
    target = cluster or Cluster(clusters.connect(), clusters.own_namespace())
    spec = job_spec(planned, told, target, nodes=nodes, gpus=gpus)
    write_job(planned, config, loaded)
    log.info("launched", uri=planned.uri, job=spec.name)
    run_job(target, spec)
    finished = planned.finished()
    if finished is None:
        raise DataError(
            f"job {spec.name} succeeded and left no output",
            where=planned.uri,
            expected="the output of the code that this step runs",
            mend="images of one build: the job's may be older or newer than this step's (make images)",
        )
    log.info("finished", uri=finished.uri, **finished.counts)
    return finished


def job_spec(planned: Plan, launch: Launch, cluster: Cluster, *, nodes: int, gpus: int) -> JobSpec:
    """Return the job that makes an output; its name is the same on every attempt of a step."""
    run_id, workflow = os.environ.get(RUN_ID_VARIABLE, ""), os.environ.get(WORKFLOW_VARIABLE, "")
    config_uri = storage.join(planned.work_uri, JOB_FILE)
    return JobSpec(
        name=job_name(run_id, planned.stage, planned.digest),
        namespace=cluster.namespace,
        stage=planned.stage,
        command=(*ENTRY, planned.stage, "--config", config_uri),
        nodes=nodes,
        gpus=gpus,
        launch=launch,
        labels=job_labels(stage=planned.stage, run_id=run_id, workflow=workflow),
        owner=cluster.workflow_owner(workflow) if workflow else None,
    )


def write_job(planned: Plan, config: Mapping[str, Any], inputs: Inputs) -> None:
    """Write what the job's pods run; inputs by where they were published, which every pod reaches."""
    addresses = {key: [manifest.uri for manifest in found] for key, found in inputs.items()}
    document = {"output_root": planned.root, "inputs": addresses, "config": dict(config)}
    storage.write_bytes(storage.join(planned.work_uri, JOB_FILE), storage.to_json_bytes(document))


def shape(name: str, config: StageConfig, launch: Launch) -> tuple[int, int]:
    """Return the number of pods, and the GPUs of each.

    Raises:
        UsageError: If the stage's configuration doesn't fit the pool, or the stage can't run as a job.
    """
    if name not in SHAPES:
        raise UsageError(f"{name} can't run as a job of its own; there are: {', '.join(SHAPES)}")
    return SHAPES[name](config, launch)


def _by_processes(config: Any, launch: Launch) -> tuple[int, int]:
    processes, per_node = config.num_processes, launch.processes_per_node
    if processes % per_node:
        raise UsageError(
            f"train_value.num_processes is {processes}, expected a multiple of trainer.processesPerNode ({per_node})"
        )
    gpus = per_node if launch.placement.gpu_resource else 0
    if config.device != "cpu" and not gpus:
        raise UsageError(f"train_value.device is {config.device}, and pool {launch.placement.pool} has no GPUs")
    return processes // per_node, gpus


def _by_devices(config: Any, launch: Launch) -> tuple[int, int]:
    devices, per_node = config.num_devices, launch.placement.gpus
    if not launch.placement.gpu_resource:
        return 1, 0
    gpus = min(devices, per_node)
    if devices % gpus:
        raise UsageError(
            f"train_policy.num_devices is {devices}, expected a multiple of the {per_node} GPUs "
            f"that a node of pool {launch.placement.pool} has"
        )
    return devices // gpus, gpus


SHAPES: Mapping[str, Callable[[Any, Launch], tuple[int, int]]] = {
    "train_value": _by_processes,
    "train_policy": _by_devices,
}
