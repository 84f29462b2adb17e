"""An Argo workflow as Kubeflow Pipelines 2.17.0 compiles and reports it, and its tasks as that server's API has them.

Every node becomes a task of API v2beta1 (``toApiPipelineTaskDetail``): with the ids of its children, without the name
of a pod, without a reason. Templates are named as ``addContainerExecutorTemplate`` does for a retry and two labels.
"""

from __future__ import annotations

import json
from typing import Any

BEGAN = "2026-11-01T10:00:00Z"
# Go's zero time, which is what a node that has not ended has.
NEVER = "0001-01-01T00:00:00Z"
NAME = "recap-x1"
LABELS = "metadata-0-2-"
STATES = {"Pending", "Running", "Succeeded", "Failed", "Skipped"}


class Workflow:
    """A workflow that grows node by node."""

    def __init__(self, name: str = NAME, namespace: str = "team", labels: str = LABELS) -> None:
        self.name, self.namespace, self.labels = name, namespace, labels
        self.nodes: dict[str, dict[str, Any]] = {}
        self.top = self._node(name, "DAG", "Running", "entrypoint", own_id=name)
        driver = self._node("root-driver", "Pod", "Succeeded", "system-dag-driver", self.top, ended=BEGAN)
        self.root = self._node("root", "DAG", "Running", "root", self.top, [driver])

    def _node(
        self,
        shown: str,
        kind: str,
        phase: str,
        template: str,
        boundary: str = "",
        after: list[str] | None = None,
        ended: str = NEVER,
        message: str = "",
        own_id: str = "",
    ) -> str:
        """Add a node below ``after``, else below its boundary, and return its id."""
        own_id = own_id or f"{self.name}-{len(self.nodes) + 100}"
        self.nodes[own_id] = {
            "id": own_id,
            "name": f"{self.nodes[boundary]['name']}.{shown}" if boundary else shown,
            "displayName": shown,
            "type": kind,
            "templateName": template,
            "phase": phase,
            "startedAt": BEGAN,
            "finishedAt": ended,
            **({"boundaryID": boundary} if boundary else {}),
            **({"message": message} if message else {}),
        }
        for parent in after or ([boundary] if boundary else []):
            self.nodes[parent].setdefault("children", []).append(own_id)
        return own_id

    def group(self, name: str, phase: str = "Running", below: str = "") -> str:
        """Add a loop, a branch or a sub-pipeline, and return its id."""
        below = below or self.root
        driver = self._node(f"{name}-driver", "Pod", "Succeeded", "system-dag-driver", below, ended=BEGAN)
        return self._node(name, "DAG", phase, f"comp-{name}", below, [driver])

    def step(
        self,
        name: str,
        phase: str,
        ended: str = NEVER,
        attempts: tuple[str, ...] | None = None,
        message: str = "",
        below: str = "",
    ) -> Workflow:
        """Add one of our steps: its driver, its graph, what repeats it, and its attempts in their phases."""
        below = below or self.root
        executor, impl = (f"{self.labels}retry-system-container-{part}" for part in ("executor", "impl"))
        driver = self._node(f"{name}-driver", "Pod", "Succeeded", "system-container-driver", below, ended=BEGAN)
        graph = self._node(name, "DAG", phase, executor, below, [driver], ended=ended)
        retry = self._node("executor", "Retry", phase, impl, graph, ended=ended)
        last = ""
        for index, result in enumerate(attempts or (phase,)):
            why = message if result == "Failed" else ""
            last = self._node(f"executor({index})", "Pod", result, impl, graph, [retry], ended, why)
        # What comes next hangs below the last attempt.
        following = self._node("next-driver", "Pod", "Succeeded", "system-container-driver", below, [last], ended=BEGAN)
        assert self.nodes[following]["boundaryID"] != self.nodes[retry]["boundaryID"]
        return self

    def failed_driver(self, name: str, message: str) -> Workflow:
        """Add a step whose driver fails: the step itself is left out."""
        why = "omitted: depends condition not met"
        driver = self._node(
            f"{name}-driver", "Pod", "Failed", "system-container-driver", self.root, ended=BEGAN, message=message
        )
        self._node(name, "Skipped", "Omitted", "", self.root, [driver], message=why)
        return self

    def pod(self, step: str, attempt: int = 0) -> str:
        """Return the name of a step's pod as the cluster has it."""
        (graph,) = [node for node in self.nodes.values() if node["displayName"] == step]
        (found,) = [
            node
            for node in self.nodes.values()
            if node.get("boundaryID") == graph["id"] and node["displayName"] == f"executor({attempt})"
        ]
        return f"{self.name}-{self.labels}retry-system-container-impl-{found['id'].rpartition('-')[2]}"

    def tasks(self) -> list[dict[str, Any]]:
        """Return the nodes as tasks of API v2beta1."""
        made = []
        for node in self.nodes.values():
            state = {"state": node["phase"].upper()} if node["phase"] in STATES else {}
            task = {
                "task_id": f"uuid-of-{node['id']}",
                "display_name": node["displayName"],
                "create_time": node["startedAt"],
                "start_time": node["startedAt"],
                "end_time": node["finishedAt"],
                "state_history": [{"update_time": BEGAN, **state}],
                **state,
            }
            if "children" in node:
                task["child_tasks"] = [{"pod_name": child} for child in node["children"]]
            made.append(task)
        return made

    def v1beta1(self, run_id: str) -> dict[str, Any]:
        """Return the run as API v1beta1 has it (``toApiRunDetailV1``)."""
        document = {
            "metadata": {"name": self.name, "namespace": self.namespace},
            "spec": {"entrypoint": "entrypoint"},
            "status": {"phase": "Running", "nodes": self.nodes},
        }
        return {"run": {"id": run_id}, "pipeline_runtime": {"workflow_manifest": json.dumps(document)}}
