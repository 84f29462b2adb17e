"""The pod of a training job: what is the same in every backend.

It runs as user 10001 without any privilege, on a read-only root with /tmp beside it, and has four minutes between
SIGTERM and SIGKILL to save its state.
"""

from __future__ import annotations

from typing import Any

from robolift import storage
from robolift.launch.spec import DIGEST_ANNOTATION, PRIORITY_LABEL, QUEUE_LABEL, JobSpec

USER = 10001
GRACE_PERIOD_S = 240
"""Twice two minutes: a state may be under way that its own waits for. A pod ends as soon as its state is saved."""
SHUTDOWN_TIMEOUT_S = 220
"""How long torchrun waits for its processes to save; less than the pod's grace period."""
TMP = "/tmp"
NO_MESH = {"sidecar.istio.io/inject": "false"}
"""A service mesh would stand between the processes of a job, and its sidecar would keep a finished pod alive."""
UNDISTURBED = {"karpenter.sh/do-not-disrupt": "true", "cluster-autoscaler.kubernetes.io/safe-to-evict": "false"}
"""What tidies nodes up by moving pods would cost the whole job a restart."""
VOLUME_MOUNTS = [{"name": "dshm", "mountPath": "/dev/shm"}, {"name": "tmp", "mountPath": TMP}]


def environment(spec: JobSpec) -> list[dict[str, Any]]:
    """Return the variables of the container, those of the placement file last so that they win."""
    values = {
        "HOME": TMP,
        "PYTHONUNBUFFERED": "1",
        "NCCL_DEBUG": "WARN",
        "TORCH_NCCL_ASYNC_ERROR_HANDLING": "1",
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(SHUTDOWN_TIMEOUT_S),
        "ROBOLIFT_IMAGE": spec.launch.image,
        "ROBOLIFT_JOB": spec.name,
    }
    if interface := spec.launch.socket_interface:
        values |= {"NCCL_SOCKET_IFNAME": interface, "GLOO_SOCKET_IFNAME": interface}
    told = {entry["name"] for entry in spec.launch.env}
    own = [{"name": name, "value": value} for name, value in values.items() if name not in told]
    return [*own, *spec.launch.env]


def resources(spec: JobSpec) -> dict[str, Any]:
    """Return requests and limits of the container; CPU has no limit, or the input pipeline would be throttled."""
    limits = {"memory": spec.launch.memory}
    if spec.gpus:
        limits[spec.launch.placement.gpu_resource] = str(spec.gpus)
    return {"requests": {"cpu": spec.launch.cpu, **limits}, "limits": limits}


def container_security() -> dict[str, Any]:
    """Return the container's security context."""
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "runAsUser": USER,
    }


def pod_security() -> dict[str, Any]:
    """Return the pod's security context; group 0 is what the images' writable folders belong to."""
    return {"runAsNonRoot": True, "runAsUser": USER, "runAsGroup": 0, "seccompProfile": {"type": "RuntimeDefault"}}


def volumes(spec: JobSpec) -> list[dict[str, Any]]:
    """Return shared memory for the workers and a scratch folder on the node's disk."""
    shared = {"medium": "Memory", "sizeLimit": spec.launch.shared_memory}
    return [{"name": "dshm", "emptyDir": shared}, {"name": "tmp", "emptyDir": {}}]


def template(spec: JobSpec, container: str, **container_fields: Any) -> dict[str, Any]:
    """Return a pod template with one container.

    Args:
        spec: The job.
        container: Name of the container.
        container_fields: Further fields of the container; ``env`` is added to its variables.
    """
    launch = spec.launch
    extra_env = container_fields.pop("env", [])
    main = {
        "name": container,
        "image": launch.image,
        "command": list(spec.command),
        "env": [*environment(spec), *extra_env],
        **({"envFrom": launch.env_from} if launch.env_from else {}),
        "resources": resources(spec),
        "securityContext": container_security(),
        "volumeMounts": VOLUME_MOUNTS,
        **container_fields,
    }
    chosen = {"schedulerName": launch.scheduler_name, "priorityClassName": launch.priority_class}
    return {
        "metadata": {"labels": {**spec.labels, **NO_MESH}, "annotations": {**NO_MESH, **UNDISTURBED}},
        "spec": {
            "serviceAccountName": launch.service_account,
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": GRACE_PERIOD_S,
            "securityContext": pod_security(),
            "nodeSelector": launch.placement.node_selector,
            "tolerations": launch.placement.tolerations,
            "containers": [main],
            "volumes": volumes(spec),
            **{key: value for key, value in chosen.items() if value},
        },
    }


def finish(manifest: dict[str, Any], spec: JobSpec) -> dict[str, Any]:
    """Give a job's manifest its metadata: name, labels, queue, owner, and a digest of everything that it asks for.

    The digest tells an earlier attempt of the same step, which is adopted, from another job of that name. The owner is
    left out of it: it does not change what the job does.
    """
    queued = {QUEUE_LABEL: spec.launch.placement.queue, PRIORITY_LABEL: spec.launch.workload_priority}
    labels = {**spec.labels, **{label: value for label, value in queued.items() if value}}
    metadata: dict[str, Any] = {"name": spec.name, "namespace": spec.namespace, "labels": labels}
    digest = storage.digest_of({**manifest, "metadata": metadata})
    metadata["annotations"] = {DIGEST_ANNOTATION: digest}
    if spec.owner:
        metadata["ownerReferences"] = [spec.owner]
    return {**manifest, "metadata": metadata}
