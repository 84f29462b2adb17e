"""What a job of one or more pods is told, whichever kind of object carries it.

:class:`Placement` and :class:`Launch` are known when a pipeline is compiled: they come from the placement file and
travel through the pipeline as a constant. :class:`JobSpec` adds what is known when the step runs.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from robolift.errors import UsageError

PROCESS = "process"
"""The backend that is none: the pipeline's step trains by itself."""
DIGEST_ANNOTATION = "robolift.io/spec-digest"
QUEUE_LABEL, PRIORITY_LABEL = "kueue.x-k8s.io/queue-name", "kueue.x-k8s.io/priority-class"
NAME_LABELS = {"app.kubernetes.io/name": "robolift", "app.kubernetes.io/managed-by": "robolift-launcher"}
STAGE_LABEL, RUN_LABEL, WORKFLOW_LABEL = "robolift.io/stage", "robolift.io/run-id", "robolift.io/workflow"
STRICT = ConfigDict(extra="forbid")


class State(StrEnum):
    """Where a job is; the last two are final."""

    PENDING = "Pending"
    SUSPENDED = "Suspended"
    RUNNING = "Running"
    RESTARTING = "Restarting"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


@dataclass(frozen=True)
class Status:
    """A job's state and what its controller says of it."""

    state: State
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class Resource:
    """Where an API server keeps objects of a kind."""

    group: str
    version: str
    plural: str


@dataclass(frozen=True, kw_only=True)
class Placement:
    """On which nodes pods may run.

    Attributes:
        pool: Name of the pool, as in the placement file.
        node_selector: Labels that a node must have.
        tolerations: Taints that don't keep the pods away, as in a pod's manifest.
        gpu_resource: Name under which nodes offer GPUs, empty if the pool has none.
        gpus: GPUs of one node.
        queue: Kueue's queue, empty without Kueue.
    """

    __pydantic_config__ = STRICT

    pool: str
    node_selector: dict[str, str]
    tolerations: list[dict[str, str]]
    gpu_resource: str = ""
    gpus: int = 0
    queue: str = ""


@dataclass(frozen=True, kw_only=True)
class Launch:
    """How one stage runs as a job of its own.

    Attributes:
        backend: A key of :data:`robolift.launch.backends.BACKENDS`, or ``process``.
        image: Container image of every pod.
        placement: Nodes.
        cpu: Cores of a pod, a Kubernetes quantity.
        memory: Memory of a pod, a Kubernetes quantity.
        shared_memory: Size of /dev/shm, a Kubernetes quantity.
        processes_per_node: Training processes of a pod.
        active_deadline_s: The job fails when it has run for so long.
        ttl_s: A finished job is deleted after so long.
        socket_interface: Network interface for NCCL and gloo, empty to let them choose.
        scheduler_name: Scheduler of the pods, empty for the cluster's own.
        priority_class: PriorityClass of the pods, empty for none.
        workload_priority: Kueue's WorkloadPriorityClass of the job, empty for none.
        service_account: Account of the pods.
        env: Further variables of the pods, as in a container's manifest.
        env_from: Secrets and ConfigMaps whose entries become variables, as in a container's manifest.
    """

    __pydantic_config__ = STRICT

    backend: str
    image: str
    placement: Placement
    cpu: str
    memory: str
    shared_memory: str
    active_deadline_s: int
    ttl_s: int
    service_account: str
    processes_per_node: int = 1
    socket_interface: str = ""
    scheduler_name: str = ""
    priority_class: str = ""
    workload_priority: str = ""
    env: list[dict[str, Any]] = field(default_factory=list)
    env_from: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Launch:
        """Read what a pipeline carries; it hands whole numbers over as floats.

        Raises:
            UsageError: Naming the fields that are wrong.
        """
        try:
            return TypeAdapter(cls).validate_python(dict(document))
        except ValidationError as error:
            lines = [f"launch.{'.'.join(map(str, p['loc']))}: {p['msg']} (got {p['input']!r})" for p in error.errors()]
            raise UsageError(
                "\n  ".join(["the step's launch parameter is wrong; compile the pipeline again:", *lines])
            ) from None


@dataclass(frozen=True, kw_only=True)
class JobSpec:
    """One job.

    Attributes:
        name: The same for every attempt of a step, at most 40 characters.
        namespace: Where it runs.
        stage: The stage that it runs.
        command: What every pod runs.
        nodes: Number of pods, each on a node of its own pool.
        gpus: GPUs of each pod.
        launch: Everything else.
        labels: On the job and its pods.
        owner: The ``ownerReferences`` entry of what the job is deleted with, None for nothing.
    """

    name: str
    namespace: str
    stage: str
    command: tuple[str, ...]
    nodes: int
    gpus: int
    launch: Launch
    labels: dict[str, str]
    owner: dict[str, Any] | None = None


def job_name(run_id: str, stage: str, digest: str) -> str:
    """Return the name of the job that makes output ``digest`` in a run: a DNS-1035 label.

    It is short because operators append the replica's name and number to it, and 63 characters are all there are.
    """
    tail = hashlib.sha256(f"{run_id}/{stage}/{digest}".encode()).hexdigest()[:10]
    words = re.sub("[^a-z0-9]+", "-", stage.lower()).strip("-")[:24].rstrip("-")
    return f"rl-{words}-{tail}"


def job_labels(*, stage: str, run_id: str, workflow: str) -> dict[str, str]:
    """Return the labels by which a job is found again; a run or workflow that there is none of gets no label."""
    found = {STAGE_LABEL: stage, RUN_LABEL: run_id, WORKFLOW_LABEL: workflow}
    return {**NAME_LABELS, **{key: value for key, value in found.items() if value}}


def true_conditions(document: Mapping[str, Any]) -> dict[str, str]:
    """Return the conditions of an object that hold, each with its message."""
    conditions = (document.get("status") or {}).get("conditions") or []
    return {c["type"]: c.get("message") or c.get("reason") or "" for c in conditions if c.get("status") == "True"}


def first_state(document: Mapping[str, Any], order: Mapping[str, State], otherwise: State) -> Status:
    """Return the state of the first condition in ``order`` that holds, ``otherwise`` if none does."""
    found = true_conditions(document)
    return next((Status(state, found[kind]) for kind, state in order.items() if kind in found), Status(otherwise))
