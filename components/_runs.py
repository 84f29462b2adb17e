"""status, logs and cancel: what a submitted run is doing, what it says, and how to end it."""

import json
import re
import sys
from typing import Any, List

from components import _steps, _workflow
from components._kubeflow import Kubeflow
from components._kubeflow_errors import NotFoundError
from components._steps import Step
from components._workflow import Workflow
from robolift import storage
from robolift.errors import RoboliftError, UsageError
from robolift.launch.spec import STAGE_LABEL

RUN_ID = re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F-]{27}")
EXIT_FAILED = 1
REPORT_STEP = "write-report"


def run_id(text: str) -> str:
    """Return a run's id from the id itself or the address of its page.

    Raises:
        UsageError: If there is none in it.
    """
    found = RUN_ID.search(text)
    if not found:
        raise UsageError(f"{text!r} is no run: expected its id, as 6f1c0c1e-..., or the address of its page")
    return found[0]


def get(kubeflow: Kubeflow, run: str) -> Any:
    """Return the API's account of a run."""
    return kubeflow.ask(f"reading run {run}", kubeflow.client.get_run, run)


def exit_code(state: str) -> int:
    """Return 0 for a run that finished or still runs, 1 for one that failed or was cancelled."""
    return EXIT_FAILED if state in _steps.FINISHED - _steps.GOOD else 0


def status(kubeflow: Kubeflow, run: str) -> int:
    """Print a run's state, steps, reasons and report; return its exit code."""
    facts = get(kubeflow, run)
    state = _steps.state_of(facts)
    workflow = _workflow.read(kubeflow, run)
    steps = _steps.read(facts, workflow)
    began, ended = _steps.known_time(facts.created_at), _steps.known_time(facts.finished_at)
    print(f"run {facts.display_name} ({run})")
    print(f"state: {state.lower()}{f', {_steps.duration(began, ended)}' if began else ''}")
    print(f"page:  {kubeflow.run_url(run)}")
    for step in _steps.worth_showing(steps):
        print(kubeflow.redact(step.line()))
    if reason := _steps.reason_of(facts):
        print(f"error: {kubeflow.redact(reason)}")
    for line in report_lines(kubeflow, run, facts, steps, workflow):
        print(line)
    return exit_code(state)


def report_lines(kubeflow: Kubeflow, run: str, facts: Any, steps: List[Step], workflow: Workflow) -> List[str]:
    """Return where the run's report is: read from the log of the step that wrote it, else the folder it lies in."""
    done = [step for step in steps if step.name == REPORT_STEP and step.state in _steps.GOOD]
    for pod in [pod.name for step in reversed(done) for pod in reversed(step.pods)]:
        for line in reversed((log_of(kubeflow, run, pod, workflow) or "").splitlines()):
            if '"write_report"' not in line:
                continue
            try:
                uri = json.loads(line[line.index("{") :]).get("uri")
            except ValueError:
                continue
            if uri:
                return [f"report: {storage.join(uri, 'report.html')}"]
    root = ((facts.runtime_config.parameters if facts.runtime_config else None) or {}).get("output_root")
    return [f"report: below {root}/write_report"] if done and root else []


def log_of(kubeflow: Kubeflow, run: str, pod: str, workflow: Workflow) -> str | None:
    """Return what a pod printed, or None where neither the API nor the web server hands out logs."""
    text = kubeflow.read_text(f"/apis/v1alpha1/runs/{run}/nodes/{pod}/log")
    if text is not None and not _is_error(text):
        return text
    where = (("podname", pod), ("runid", run), ("podnamespace", _namespace(kubeflow, workflow)))
    return kubeflow.read_text("/k8s/pod/logs", where)


def _is_error(text: str) -> bool:
    """Tell whether a log is the API's error: it answers 200 before it looks for the pod."""
    if not text.startswith('{"error_message"'):
        return False
    try:
        return set(json.loads(text)) <= {"error_message", "error_details"}
    except ValueError:
        return False


def _namespace(kubeflow: Kubeflow, workflow: Workflow) -> str:
    return workflow.namespace or kubeflow.namespace or "kubeflow"


def _choose(steps: List[Step], name: str) -> List[Step]:
    if not name:
        return [step for step in _steps.worth_showing(steps) if step.state not in ("PENDING", "SKIPPED")]
    wanted = name.replace("_", "-")
    found = [step for step in steps if step.name == wanted]
    if not found:
        there = ", ".join(dict.fromkeys(step.name for step in steps if not step.is_plumbing)) or "none yet"
        raise NotFoundError(f"no step {name!r} in this run; there are: {there}")
    return found


def logs(kubeflow: Kubeflow, run: str, name: str) -> int:
    """Print what the steps of a run said; where the server has no log, the command that gets it.

    Args:
        kubeflow: Connection.
        run: Id of the run.
        name: Step, ``train_value`` or ``train-value``; empty for all.

    Returns:
        0 if every step's log was printed, 1 if one is only to be had with kubectl.
    """
    facts, workflow = get(kubeflow, run), _workflow.read(kubeflow, run)
    steps = _choose(_steps.read(facts, workflow), name)
    if not steps:
        print("no step has started yet")
    missing = []
    for step in steps:
        texts = {pod.name: log_of(kubeflow, run, pod.name, workflow) for pod in step.pods}
        for pod, text in texts.items():
            if text is not None:
                print(f"==> {step.name} ({pod})")
                sys.stdout.write(kubeflow.redact(text if text.endswith("\n") else f"{text}\n"))
        if all(text is None for text in texts.values()):
            missing.append(step)
    if not missing:
        return 0
    print(f"the server has no log of: {', '.join(dict.fromkeys(step.name for step in missing))}; ask the cluster:")
    for stage in dict.fromkeys(step.stage for step in missing):
        labels = f"pipeline/runid={run}" + (f",{STAGE_LABEL}={stage}" if stage else "")
        print(f"  kubectl -n {_namespace(kubeflow, workflow)} logs -l {labels} -c main --tail=-1")
    return EXIT_FAILED


def confirmed(question: str) -> bool:
    """Ask on the terminal; anything but yes is no.

    Raises:
        UsageError: If there is no terminal to ask on.
    """
    if not sys.stdin.isatty():
        raise UsageError(f"{question} There is no terminal to ask on; add --yes")
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def terminate(kubeflow: Kubeflow, run: str) -> None:
    """End a run."""
    kubeflow.ask(f"ending run {run}", kubeflow.client.terminate_run, run)


def cancel(kubeflow: Kubeflow, run: str, *, yes: bool) -> int:
    """End a run after asking; return 0 if it is ended or was over."""
    facts = get(kubeflow, run)
    state = _steps.state_of(facts)
    if state in _steps.FINISHED:
        print(f"run {run} is over: {state.lower()}")
        return 0
    if not yes and not confirmed(f"End run {facts.display_name} ({run}), {state.lower()}?"):
        print("left running")
        return 0
    try:
        terminate(kubeflow, run)
    except RoboliftError:
        # It may have come to its end while we asked.
        if _steps.state_of(get(kubeflow, run)) not in _steps.FINISHED:
            raise
    print(f"ending run {run}")
    return 0
