"""PyTorchJob v1 of the Kubeflow training operator: one master and workers, which find each other by PET_* variables.

The operator (1.9) gives every pod PET_NNODES, PET_NPROC_PER_NODE, PET_NODE_RANK, PET_MASTER_ADDR and PET_MASTER_PORT.
Its restart policy ``ExitCode`` makes a pod anew that ended with 128 or more, and fails the job for any other code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from robolift.launch import pod
from robolift.launch.spec import JobSpec, Resource, State, Status, first_state

RESOURCE = Resource(group="kubeflow.org", version="v1", plural="pytorchjobs")
CONTAINER = "pytorch"
PORT = 23456
ORDER = {
    "Failed": State.FAILED,
    "Succeeded": State.SUCCEEDED,
    "Suspended": State.SUSPENDED,
    "Restarting": State.RESTARTING,
    "Running": State.RUNNING,
}


def build(spec: JobSpec) -> dict[str, Any]:
    """Return the manifest."""
    ports = [{"name": "pytorchjob-port", "containerPort": PORT}]

    def replica(number: int) -> dict[str, Any]:
        return {
            "replicas": number,
            "restartPolicy": "ExitCode",
            "template": pod.template(spec, CONTAINER, ports=ports),
        }

    replicas = {"Master": replica(1)}
    if spec.nodes > 1:
        replicas["Worker"] = replica(spec.nodes - 1)
    policy: dict[str, Any] = {
        "cleanPodPolicy": "None",  # the logs of failed pods are read after the end
        "activeDeadlineSeconds": spec.launch.active_deadline_s,
        "ttlSecondsAfterFinished": spec.launch.ttl_s,
        # Kueue starts it; without a queue nobody would.
        "suspend": bool(spec.launch.placement.queue),
    }
    manifest = {
        "apiVersion": f"{RESOURCE.group}/{RESOURCE.version}",
        "kind": "PyTorchJob",
        "spec": {
            "nprocPerNode": str(spec.launch.processes_per_node),
            "runPolicy": policy,
            "pytorchReplicaSpecs": replicas,
        },
    }
    return pod.finish(manifest, spec)


def companions(spec: JobSpec) -> list[dict[str, Any]]:
    """Return what must stand beside the job: nothing, the operator makes the services."""
    return []


def state(document: Mapping[str, Any]) -> Status:
    """Return the state of a job as read from the API server."""
    return first_state(document, ORDER, State.PENDING)


def pods_selector(name: str) -> str:
    """Return the label selector of all pods of a job."""
    return f"training.kubeflow.org/job-name={name}"


def main_selector(name: str) -> str:
    """Return the label selector of the pod whose log tells the story."""
    return f"{pods_selector(name)},training.kubeflow.org/replica-type=master"
