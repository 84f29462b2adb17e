"""A plain batch/v1 Job: no operator needed, and a pod on a vanished spot node is made anew, which a step's is not.

Several pods are an indexed Job; a headless Service gives the first of them a name at which the others find it. They are
told so by the PET_* variables that the training operator would set.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from robolift.launch import pod
from robolift.launch.spec import JobSpec, Resource, State, Status, first_state

RESOURCE = Resource(group="batch", version="v1", plural="jobs")
CONTAINER = "main"
PORT = 23456
BACKOFF_LIMIT = 1000
"""Never what ends a job: attempts without progress are counted by the pod itself."""
SIGKILLED, SIGTERMINATED = 137, 143
ORDER = {
    "Failed": State.FAILED,
    "FailureTarget": State.FAILED,
    "Complete": State.SUCCEEDED,
    "Suspended": State.SUSPENDED,
}
INDEX_FIELD = "metadata.annotations['batch.kubernetes.io/job-completion-index']"


def build(spec: JobSpec) -> dict[str, Any]:
    """Return the manifest."""
    template = pod.template(spec, CONTAINER, env=_meeting_point(spec), ports=[{"name": "job", "containerPort": PORT}])
    template["spec"]["restartPolicy"] = "Never"
    if spec.nodes > 1:
        template["spec"]["subdomain"] = spec.name
    manifest = {
        "apiVersion": f"{RESOURCE.group}/{RESOURCE.version}",
        "kind": "Job",
        "spec": {
            "completions": spec.nodes,
            "parallelism": spec.nodes,
            "completionMode": "Indexed",
            "backoffLimit": BACKOFF_LIMIT,
            "activeDeadlineSeconds": spec.launch.active_deadline_s,
            "ttlSecondsAfterFinished": spec.launch.ttl_s,
            "suspend": bool(spec.launch.placement.queue),
            "podFailurePolicy": {
                "rules": [
                    {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                    {
                        "action": "FailJob",
                        "onExitCodes": {
                            "containerName": CONTAINER,
                            "operator": "NotIn",
                            "values": [SIGKILLED, SIGTERMINATED],
                        },
                    },
                ]
            },
            "template": template,
        },
    }
    return pod.finish(manifest, spec)


def _meeting_point(spec: JobSpec) -> list[dict[str, Any]]:
    if spec.nodes == 1:
        return []
    host = f"{spec.name}-0.{spec.name}"
    values = {
        "PET_NNODES": str(spec.nodes),
        "PET_NPROC_PER_NODE": str(spec.launch.processes_per_node),
        "PET_MASTER_ADDR": host,
        "PET_MASTER_PORT": str(PORT),
    }
    rank = {"name": "PET_NODE_RANK", "valueFrom": {"fieldRef": {"fieldPath": INDEX_FIELD}}}
    return [*({"name": name, "value": value} for name, value in values.items()), rank]


def companions(spec: JobSpec) -> list[dict[str, Any]]:
    """Return what must stand beside the job: the Service through which its pods find the first of them."""
    if spec.nodes == 1:
        return []
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": spec.name, "namespace": spec.namespace, "labels": dict(spec.labels)},
        "spec": {
            "clusterIP": "None",
            "selector": {"batch.kubernetes.io/job-name": spec.name},
            # They meet before any of them is ready.
            "publishNotReadyAddresses": True,
            "ports": [{"name": "job", "port": PORT}],
        },
    }
    return [service]


def state(document: Mapping[str, Any]) -> Status:
    """Return the state of a job as read from the API server."""
    active = (document.get("status") or {}).get("active")
    return first_state(document, ORDER, State.RUNNING if active else State.PENDING)


def pods_selector(name: str) -> str:
    """Return the label selector of all pods of a job."""
    return f"batch.kubernetes.io/job-name={name}"


def main_selector(name: str) -> str:
    """Return the label selector of the pod whose log tells the story."""
    return f"{pods_selector(name)},batch.kubernetes.io/job-completion-index=0"
