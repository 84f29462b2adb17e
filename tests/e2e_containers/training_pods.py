"""Plays the training operator with containers: the pods of a PyTorchJob, each with its own address on one network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import docker
from docker.models.containers import Container
from docker.models.networks import Network

PORT = 23456
CONTAINER = "pytorch"


@dataclass(frozen=True, kw_only=True)
class Pod:
    """What one pod of the job runs: the manifest's container, and the variables that the operator (1.9) adds."""

    name: str
    image: str
    command: list[str]
    environment: dict[str, str]
    user: int
    read_only: bool
    dropped: list[str]


def pods_of(job: Mapping[str, Any]) -> list[Pod]:
    """Return the pods of a PyTorchJob, the master first."""
    name, spec = job["metadata"]["name"], job["spec"]
    replicas = spec["pytorchReplicaSpecs"]
    numbered = [
        (kind, i) for kind in ("Master", "Worker") for i in range(replicas.get(kind, {"replicas": 0})["replicas"])
    ]
    pods = []
    for rank, (kind, index) in enumerate(numbered):
        (main,) = [c for c in replicas[kind]["template"]["spec"]["containers"] if c["name"] == CONTAINER]
        security = main["securityContext"]
        pods.append(
            Pod(
                name=f"{name}-{kind.lower()}-{index}",
                image=main["image"],
                command=[*main["command"], *main.get("args", [])],
                environment={entry["name"]: entry["value"] for entry in main["env"]}
                | {
                    "PET_NNODES": str(len(numbered)),
                    "PET_NPROC_PER_NODE": spec["nprocPerNode"],
                    "PET_NODE_RANK": str(rank),
                    "PET_MASTER_ADDR": f"{name}-master-0",
                    "PET_MASTER_PORT": str(PORT),
                    "MASTER_ADDR": f"{name}-master-0",
                    "MASTER_PORT": str(PORT),
                    "WORLD_SIZE": str(len(numbered)),
                    "RANK": str(rank),
                },
                user=security["runAsUser"],
                read_only=security["readOnlyRootFilesystem"],
                dropped=security["capabilities"]["drop"],
            )
        )
    return pods


class Pods:
    """The containers of one attempt at a job."""

    def __init__(self, client: docker.DockerClient, network: Network, job: Mapping[str, Any]) -> None:
        self.pods = pods_of(job)
        self.containers: list[Container] = [
            client.containers.run(
                pod.image,
                pod.command,
                detach=True,
                name=pod.name,
                hostname=pod.name,
                network=network.name,
                environment=pod.environment,
                user=f"{pod.user}:0",
                read_only=pod.read_only,
                cap_drop=pod.dropped,
                security_opt=["no-new-privileges"],
                tmpfs={"/tmp": "exec,mode=1777"},
                shm_size="256m",
            )
            for pod in self.pods
        ]

    def __enter__(self) -> Pods:
        return self

    def __exit__(self, *_: object) -> None:
        for container in self.containers:
            container.remove(force=True)

    def addresses(self) -> list[str]:
        """Return each pod's address on the network."""
        found = []
        for container in self.containers:
            container.reload()
            (network,) = container.attrs["NetworkSettings"]["Networks"].values()
            found.append(network["IPAddress"])
        return found

    def running(self) -> bool:
        """Tell whether every pod still runs."""
        for container in self.containers:
            container.reload()
        return all(container.status == "running" for container in self.containers)

    def exit_codes(self, timeout_s: float) -> list[int]:
        """Wait for the end of every pod and return how each ended."""
        return [container.wait(timeout=timeout_s)["StatusCode"] for container in self.containers]

    def logs(self) -> str:
        """Return the last lines of every pod."""
        texts = [f"--- {c.name}\n{c.logs(tail=60).decode(errors='replace')}" for c in self.containers]
        return "\n".join(texts)
