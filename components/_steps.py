"""What a run on the cluster is doing, read from the API's account of it: steps, times, reasons, pods."""

import datetime
import re
from dataclasses import dataclass
from typing import Any, Dict, List

FINISHED = frozenset({"SUCCEEDED", "SKIPPED", "FAILED", "CANCELED"})
GOOD = frozenset({"SUCCEEDED", "SKIPPED"})
MARKS = {"SUCCEEDED": "✓", "SKIPPED": "·", "FAILED": "✗", "CANCELED": "✗", "RUNNING": "▸"}
# Drivers and sub-graphs are Kubeflow's own; a person cares for them only when one fails.
PLUMBING = re.compile(r"^(root|executor|.*-driver|for-loop-\d+|condition-.*|iteration-.*)$")
ARGO_TEMPLATE = "system-container-impl"


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of a run."""

    name: str
    """Name of the task, as ``train-value``."""
    task_id: str
    state: str
    began: datetime.datetime | None
    ended: datetime.datetime | None
    reason: str
    """Why it failed, as far as the server knows."""
    pods: List[str]
    """Names its pod may have, likeliest first."""

    @property
    def key(self) -> str:
        """Return what tells this step from others of its name."""
        return self.task_id or self.name

    @property
    def is_plumbing(self) -> bool:
        """Tell whether it is Kubeflow's and not ours."""
        return bool(PLUMBING.match(self.name))

    def line(self) -> str:
        """Return the step for a terminal."""
        mark = MARKS.get(self.state, " ")
        took = duration(self.began, self.ended) if self.began else ""
        return f"  {mark} {self.name:<24} {self.state.lower():<10} {took:>9}  {self.reason}".rstrip()


def state_of(thing: Any) -> str:
    """Return the state of a run or task, PENDING when the server has none yet."""
    return str(thing.state or "PENDING").upper()


def known_time(value: datetime.datetime | None) -> datetime.datetime | None:
    """Return a time, or None for the zero that the server writes where it knows none."""
    return value if value and value.year > 1970 else None


def duration(began: datetime.datetime, ended: datetime.datetime | None) -> str:
    """Return h:mm:ss between two times, up to now when it isn't over."""
    until = ended or datetime.datetime.now(began.tzinfo)
    return str(datetime.timedelta(seconds=max(0, round((until - began).total_seconds()))))


def reason_of(thing: Any) -> str:
    """Return why a run or task failed: its own error, or the last one in its history."""
    errors = [thing.error, *(entry.error for entry in reversed(thing.state_history or []))]
    return next((" ".join(error.message.split()) for error in errors if error and error.message), "")


def pod_names(node: str) -> List[str]:
    """Return the names that the pod of an Argo node may have.

    The API gives a node's id, ``<workflow>-<hash>``; Argo names the pod ``<workflow>-<template>-<hash>``.
    """
    workflow, _, number = node.rpartition("-")
    if not workflow or not number.isdigit() or workflow.endswith(ARGO_TEMPLATE):
        return [node]
    return [f"{workflow}-{ARGO_TEMPLATE}-{number}", node]


def read(run: Any) -> List[Step]:
    """Return the steps of a run in the order they began, Kubeflow's own among them."""
    details = (run.run_details.task_details if run.run_details else None) or []
    steps = []
    for task in details:
        executor = task.executor_detail
        nodes = [task.pod_name, executor.main_job if executor else None]
        nodes += [child.pod_name for child in task.child_tasks or []]
        pods: Dict[str, None] = {}
        for node in filter(None, nodes):
            pods.update(dict.fromkeys(pod_names(node)))
        steps.append(
            Step(
                name=task.display_name or task.task_id or "",
                task_id=task.task_id or "",
                state=state_of(task),
                began=known_time(task.start_time) or known_time(task.create_time),
                ended=known_time(task.end_time),
                reason=reason_of(task),
                pods=list(pods),
            )
        )
    late = datetime.datetime.max.replace(tzinfo=datetime.UTC)
    return sorted(steps, key=lambda step: (step.began or late, step.name))


def worth_showing(steps: List[Step]) -> List[Step]:
    """Return the steps that a person wants to see: ours, and Kubeflow's where they failed."""
    return [step for step in steps if not step.is_plumbing or step.state == "FAILED"]
