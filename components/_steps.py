"""What a run on the cluster is doing, read from the API's account of it: steps, times, reasons, pods."""

import datetime
import re
from dataclasses import dataclass
from typing import Any, List

from components._workflow import Pod, Workflow

FINISHED = frozenset({"SUCCEEDED", "SKIPPED", "FAILED", "CANCELED"})
GOOD = frozenset({"SUCCEEDED", "SKIPPED"})
MARKS = {"SUCCEEDED": "✓", "SKIPPED": "·", "FAILED": "✗", "CANCELED": "✗", "RUNNING": "▸"}
# Each node of the Argo workflow is a task of its own to the API: drivers, loops, branches, sub-pipelines, and below a
# step of ours the executor and its attempts. A person cares for a driver alone, and only when it fails.
DRIVER = re.compile(r".*-driver(\(\d+\))?")
PLUMBING = re.compile(
    r"root|executor(\(\d+\))?|.*-driver(\(\d+\))?|for-loop-.*|condition-.*|iteration-.*|exit-hook-.*|.*\.on[Ee]xit"
    r"|(recap|stage-advantage|reward-labeling|clip-reward)-.*"
)
# A task that Argo left out, because of a branch not taken or a step that failed, has no state.
LEFT_OUT = "RUNTIME_STATE_UNSPECIFIED"


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
    pods: List[Pod]
    """Its attempts, oldest first; empty where the server does not tell."""
    is_plumbing: bool
    """Whether it is Kubeflow's and not ours."""

    @property
    def key(self) -> str:
        """Return what tells this step from others of its name."""
        return self.task_id or self.name

    @property
    def stage(self) -> str:
        """Return the stage it runs, which its pods carry as a label; empty for Kubeflow's own."""
        return "" if self.is_plumbing else re.sub(r"-\d+$", "", self.name).replace("-", "_")

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


def read(run: Any, workflow: Workflow | None = None) -> List[Step]:
    """Return the steps of a run in the order they began, Kubeflow's own among them.

    Args:
        run: The API's account of the run.
        workflow: Its workflow, for the pods and for what Argo says of a failure, which the account lacks.
    """
    details = (run.run_details.task_details if run.run_details else None) or []
    children = [[child.pod_name for child in task.child_tasks or [] if child.pod_name] for task in details]
    # The uppermost task has the workflow's name, with which the ids of all its nodes begin.
    workflows = {node.rpartition("-")[0] for nodes in children for node in nodes}
    steps = []
    for task, nodes in zip(details, children, strict=True):
        name = task.display_name or task.task_id or ""
        pods = workflow.pods(name, nodes) if workflow else []
        messages = [pod.message for pod in reversed(pods) if pod.failed and pod.message]
        steps.append(
            Step(
                name=name,
                task_id=task.task_id or "",
                state=str(task.state or LEFT_OUT).upper(),
                began=known_time(task.start_time) or known_time(task.create_time),
                ended=known_time(task.end_time),
                reason=reason_of(task) or (messages[0] if messages else ""),
                pods=pods,
                is_plumbing=name in workflows or bool(PLUMBING.fullmatch(name)),
            )
        )
    late = datetime.datetime.max.replace(tzinfo=datetime.UTC)
    return sorted(steps, key=lambda step: (step.began or late, step.name))


def worth_showing(steps: List[Step]) -> List[Step]:
    """Return the steps that a person wants to see: ours that are not left out, and drivers that failed."""
    return [
        step
        for step in steps
        if (DRIVER.fullmatch(step.name) and step.state == "FAILED") or (not step.is_plumbing and step.state != LEFT_OUT)
    ]
