"""TrainJob v1alpha1 of Kubeflow Trainer 2: the successor of PyTorchJob, whose fields still move between releases.

Written for Trainer 2.3. The job refers to the TrainingRuntime ``robolift`` of its namespace, which holds what a
TrainJob can't say (restarts, what a failure means); placement and security are patches of it. Trainer sets the same
PET_* variables as the training operator. There is no time to live: the reaper removes finished jobs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from robolift.errors import UsageError
from robolift.launch import pod
from robolift.launch.spec import JobSpec, Resource, State, Status, first_state

RESOURCE = Resource(group="trainer.kubeflow.org", version="v1alpha1", plural="trainjobs")
CONTAINER = "node"
RUNTIME = "robolift"
MANAGER = "robolift.io/launcher"
ORDER = {"Failed": State.FAILED, "Complete": State.SUCCEEDED, "Suspended": State.SUSPENDED}


def build(spec: JobSpec) -> dict[str, Any]:
    """Return the manifest.

    Raises:
        UsageError: If the placement file says what a TrainJob can't carry.
    """
    launch = spec.launch
    unsaid = {
        "envFrom": launch.env_from,
        "schedulerName": launch.scheduler_name,
        "priorityClass": launch.priority_class,
    }
    if impossible := [name for name, value in unsaid.items() if value]:
        raise UsageError(
            f"trainer.{', trainer.'.join(impossible)}: a TrainJob has no such field; "
            f"set it in the TrainingRuntime {RUNTIME}, or use backend pytorchjob"
        )
    patch = {
        "serviceAccountName": launch.service_account,
        "nodeSelector": launch.placement.node_selector,
        "tolerations": launch.placement.tolerations,
        "terminationGracePeriodSeconds": pod.GRACE_PERIOD_S,
        "securityContext": pod.pod_security(),
        "volumes": pod.volumes(spec),
        "containers": [
            {"name": CONTAINER, "volumeMounts": pod.VOLUME_MOUNTS, "securityContext": pod.container_security()}
        ],
    }
    template = {"metadata": {"labels": {**spec.labels, **pod.NO_MESH}, "annotations": dict(pod.NO_MESH)}, "spec": patch}
    job = {"name": CONTAINER, "template": {"spec": {"template": template}}}
    manifest = {
        "apiVersion": f"{RESOURCE.group}/{RESOURCE.version}",
        "kind": "TrainJob",
        "spec": {
            "runtimeRef": {"apiGroup": RESOURCE.group, "kind": "TrainingRuntime", "name": RUNTIME},
            "suspend": bool(launch.placement.queue),
            "activeDeadlineSeconds": launch.active_deadline_s,
            "trainer": {
                "image": launch.image,
                "command": list(spec.command),
                "env": pod.environment(spec),
                "numNodes": spec.nodes,
                "numProcPerNode": launch.processes_per_node,
                "resourcesPerNode": pod.resources(spec),
            },
            "runtimePatches": [
                {"manager": MANAGER, "trainingRuntimeSpec": {"template": {"spec": {"replicatedJobs": [job]}}}}
            ],
        },
    }
    return pod.finish(manifest, spec)


def companions(spec: JobSpec) -> list[dict[str, Any]]:
    """Return what must stand beside the job: nothing, Trainer makes the service."""
    return []


def state(document: Mapping[str, Any]) -> Status:
    """Return the state of a job as read from the API server; Trainer has no condition for a running one."""
    jobs = (document.get("status") or {}).get("jobsStatus") or []
    active = any(job.get("active") for job in jobs)
    return first_state(document, ORDER, State.RUNNING if active else State.PENDING)


def pods_selector(name: str) -> str:
    """Return the label selector of all pods of a job."""
    return f"jobset.sigs.k8s.io/jobset-name={name}"


def main_selector(name: str) -> str:
    """Return the label selector of the pod whose log tells the story."""
    return f"{pods_selector(name)},batch.kubernetes.io/job-completion-index=0"
