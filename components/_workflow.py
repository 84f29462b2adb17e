"""The Argo workflow behind a run: the pods of its steps, and why one failed.

API v2beta1 tells neither: its tasks name no pod, only the ids of Argo's nodes beneath them. The same server's v1beta1
hands out the workflow as the cluster last reported it. A pod's name is made of it as the server itself makes it
(``RetrievePodName`` in Kubeflow Pipelines 2.17.0).
"""

import json
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Sequence

from components._kubeflow import Kubeflow

BAD_PHASES = frozenset({"Failed", "Error"})
POD_NAME_FORMAT = "workflows.argoproj.io/pod-name-format"
# The node beneath a step: the pod, or where a step may be repeated, the node that repeats it.
EXECUTOR = "executor"


@dataclass(frozen=True, kw_only=True)
class Pod:
    """One attempt at a step."""

    name: str
    failed: bool
    message: str
    """What Argo says about it, as ``OOMKilled (exit code 137)``."""


class Workflow:
    """A run's workflow; without nodes where the server hands out none."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        """Take the workflow as Kubernetes has it, or an empty mapping."""
        metadata = document.get("metadata") or {}
        self.name = str(metadata.get("name") or "")
        self.namespace = str(metadata.get("namespace") or "")
        self._plain_names = (metadata.get("annotations") or {}).get(POD_NAME_FORMAT) == "v1"
        self._nodes: Dict[str, Dict[str, Any]] = (document.get("status") or {}).get("nodes") or {}

    def pods(self, name: str, children: Sequence[str]) -> List[Pod]:
        """Return the pods of a task, oldest first.

        Args:
            name: The task's name.
            children: Ids of the nodes that the API names beneath it.
        """
        own = [
            node
            for node in self._nodes.values()
            if node.get("displayName") == name and sorted(node.get("children") or []) == sorted(children)
        ]
        beneath = [self._nodes[child] for child in children if child in self._nodes]
        executors = [node for node in beneath if node.get("displayName") == EXECUTOR]
        attempts = [attempt for node in executors for attempt in self._attempts(node)]
        return [self._pod(node) for node in (*own, *executors, *attempts) if node.get("type") == "Pod"]

    def _attempts(self, node: Mapping[str, Any]) -> List[Dict[str, Any]]:
        """Return what a node repeats. What merely follows it hangs below it too, but belongs to another template."""
        if node.get("type") != "Retry":
            return []
        found = [self._nodes[child] for child in node.get("children") or [] if child in self._nodes]
        return [attempt for attempt in found if attempt.get("boundaryID") == node.get("boundaryID")]

    def _pod(self, node: Mapping[str, Any]) -> Pod:
        identity = str(node.get("id") or "")
        name = (
            identity if self._plain_names else f"{self.name}-{node.get('templateName')}-{identity.rpartition('-')[2]}"
        )
        message = " ".join(str(node.get("message") or "").split())
        return Pod(name=name, failed=node.get("phase") in BAD_PHASES, message=message)


def _mapping(text: Any) -> Dict[str, Any]:
    try:
        document = json.loads(text or "{}")
    except (TypeError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def read(kubeflow: Kubeflow, run: str) -> Workflow:
    """Return a run's workflow; one without nodes if this server hands out none."""
    answer = _mapping(kubeflow.read_text(f"/apis/v1beta1/runs/{run}"))
    runtime = answer.get("pipeline_runtime") or {}
    return Workflow(_mapping(runtime.get("workflow_manifest")))
