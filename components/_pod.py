"""The pod of a step in Kubernetes' terms, as ``kfp.kubernetes`` would write it.

Each function of ``kfp.kubernetes`` turns a task's whole configuration into a message and back, ten times a step, and
importing it imports the Kubernetes API. What it leaves is one dictionary, which is made here.
"""

from dataclasses import dataclass, field
from typing import Any, Dict, List

PLATFORM = "kubernetes"


@dataclass(frozen=True, kw_only=True)
class Pod:
    """What is asked of Kubernetes for one step.

    Attributes:
        node_selector: Labels that the node must have.
        tolerations: Taints that don't keep the pod away, as in a pod's manifest.
        labels: Of the pod.
        annotations: Of the pod.
        user: Whom its processes run as, never root.
        group: Their group.
        shared_memory: Size of /dev/shm; empty for the container engine's own.
        field_paths: Variables of the step that are read from the pod's own manifest, and the fields they are.
        deadline_s: Seconds after which it is ended; None for never.
    """

    node_selector: Dict[str, str]
    tolerations: List[Dict[str, str]]
    labels: Dict[str, str]
    annotations: Dict[str, str]
    user: int
    group: int
    shared_memory: str = ""
    field_paths: Dict[str, str] = field(default_factory=dict)
    deadline_s: int | None = None

    def config(self) -> Dict[str, Any]:
        """Return it as the JSON of a ``KubernetesExecutorConfig``."""
        # Numbers of 64 bits are text in the JSON of protocol buffers.
        metadata = {"labels": self.labels, "annotations": self.annotations}
        memory = {
            "volumeName": "dshm",
            "mountPath": "/dev/shm",
            "medium": "Memory",
            "sizeLimit": self.shared_memory,
        }
        found = {
            "nodeSelector": {"labels": self.node_selector} if self.node_selector else {},
            "tolerations": self.tolerations,
            "podMetadata": {key: value for key, value in metadata.items() if value},
            "emptyDirMounts": [memory] if self.shared_memory else [],
            "securityContext": {"runAsUser": str(self.user), "runAsGroup": str(self.group), "runAsNonRoot": True},
            "fieldPathAsEnv": [{"name": name, "fieldPath": path} for name, path in self.field_paths.items()],
            "activeDeadlineSeconds": "" if self.deadline_s is None else str(self.deadline_s),
        }
        return {key: value for key, value in found.items() if value}
