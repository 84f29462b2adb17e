"""What the training operator (1.9) makes of a PyTorchJob: its pods, their commands and the variables it adds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

PORT_NAME = "pytorchjob-port"


@dataclass(frozen=True)
class Pod:
    """A pod before it is placed.

    Attributes:
        name: Also its host name, under which the others find it.
        labels: As the operator sets them, with the template's.
        container: The container that trains.
        env: Every variable of it.
    """

    name: str
    labels: dict[str, str]
    container: dict[str, Any]
    env: dict[str, str]


def pods(manifest: dict[str, Any]) -> list[Pod]:
    """Return the pods of a job, the master first; what the operator sets wins over the manifest."""
    job, spec = manifest["metadata"]["name"], manifest["spec"]
    replicas = spec["pytorchReplicaSpecs"]
    nodes = sum(replica["replicas"] for replica in replicas.values())
    processes = int(spec["nprocPerNode"])
    made: list[Pod] = []
    for kind in ("Master", "Worker"):
        replica = replicas.get(kind, {"replicas": 0})
        for index in range(replica["replicas"]):
            rank = len(made)
            template = replica["template"]
            (container,) = template["spec"]["containers"]
            (port,) = [p["containerPort"] for p in container["ports"] if p["name"] == PORT_NAME]
            master, role = f"{job}-master-0", kind.lower()
            told = {entry["name"]: entry["value"] for entry in container["env"]}
            added = {
                "PET_NNODES": str(nodes),
                "PET_NPROC_PER_NODE": str(processes),
                "PET_NODE_RANK": str(rank),
                "PET_MASTER_ADDR": master,
                "PET_MASTER_PORT": str(port),
                "MASTER_ADDR": master,
                "MASTER_PORT": str(port),
                "WORLD_SIZE": str(nodes * processes),
                "RANK": str(rank),
            }
            labels = {
                **template["metadata"]["labels"],
                "training.kubeflow.org/job-name": job,
                "training.kubeflow.org/replica-type": role,
                "training.kubeflow.org/replica-index": str(index),
            }
            made.append(Pod(f"{job}-{role}-{index}", labels, container, {**told, **added}))
    return made
