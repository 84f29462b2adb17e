"""Wait for a submitted run: show each step as it starts and ends, and ask before a Ctrl-C ends anything."""

import re
import sys
import time
from dataclasses import dataclass
from typing import Any, Callable, Dict, List

from components import _runs, _steps, _workflow
from components._kubeflow import Kubeflow
from components._kubeflow_errors import UnavailableError
from components._workflow import Workflow
from robolift.errors import RoboliftError, UsageError

EXIT_TIMEOUT = 3
EXIT_INTERRUPTED = 130
# A server may restart while a run goes on for days: this many polls in a row may fail.
MAX_FAILED_POLLS = 30
DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhd]?)")
SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds(text: str) -> float:
    """Return the seconds of ``90``, ``90s``, ``30m``, ``12h`` or ``2d``.

    Raises:
        UsageError: If it is none of these.
    """
    found = DURATION.fullmatch(text)
    if not found:
        raise UsageError(f"{text!r} is no duration: expected 90, 90s, 30m, 12h or 2d")
    return float(found[1]) * SECONDS[found[2]]


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long to wait, and how often to look."""

    timeout_s: float
    """0 waits for ever."""
    poll_s: float

    @classmethod
    def read(cls, timeout: str, poll: str) -> "Patience":
        """Return what two durations on the command line say.

        Raises:
            UsageError: If one is none.
        """
        return cls(timeout_s=seconds(timeout), poll_s=seconds(poll))


class _Watch:
    """Remembers what was shown, so that each change is shown once."""

    def __init__(self) -> None:
        self._shown: Dict[str, str] = {}
        self._state = ""

    def changes(self, facts: Any, workflow: Callable[[], Workflow]) -> List[str]:
        """Return a line for each change, and ask for the workflow if it takes that to say why a step failed."""
        lines = []
        state = _steps.state_of(facts)
        if state != self._state:
            self._state = state
            lines.append(f"run is {state.lower()}")
        steps = _steps.worth_showing(_steps.read(facts))
        news = {step.key for step in steps if step.state != self._shown.get(step.key) and step.state in _steps.MARKS}
        if any(step.key in news and step.state == "FAILED" and not step.reason for step in steps):
            steps = _steps.worth_showing(_steps.read(facts, workflow()))
        for step in steps:
            if step.key in news:
                self._shown[step.key] = step.state
                lines.append(step.line())
        return lines


class _Look:
    """Asks how a run is, and forgives a server or a token that is away for a while."""

    def __init__(self, kubeflow: Kubeflow, run: str, *, known: bool) -> None:
        self._kubeflow, self._run, self._failed = kubeflow, run, 0
        self.known = known

    def facts(self) -> Any:
        """Return the account of the run, or None where there is none just now.

        Raises:
            RoboliftError: If that has gone on for too long, or at once where nobody knows that there is such a run.
        """
        try:
            facts = _runs.get(self._kubeflow, self._run)
        except RoboliftError as error:
            self._failed += 1
            # Until the run is known to be there, a wrong id or a wrong token is the caller's to mend.
            mistaken = not self.known and not isinstance(error, UnavailableError)
            if mistaken or self._failed > MAX_FAILED_POLLS:
                raise
            if self._failed == 1:
                sys.stderr.write(f"{error}\n  still waiting; the run goes on without us\n")
            return None
        self._failed, self.known = 0, True
        return facts


def _poll(kubeflow: Kubeflow, run: str, patience: Patience, *, known: bool) -> int:
    """Poll until the run is over; return 0, 1 or, when patience ends or the server is lost, 3."""
    timeout_s, poll_s = patience.timeout_s, patience.poll_s
    watch, look, began = _Watch(), _Look(kubeflow, run, known=known), time.monotonic()
    while True:
        try:
            facts = look.facts()
        except RoboliftError as error:
            if not look.known:
                raise
            return _lost(kubeflow, run, error)
        if facts is not None:
            for line in watch.changes(facts, lambda: _workflow.read(kubeflow, run)):
                print(kubeflow.redact(line), flush=True)
            state = _steps.state_of(facts)
            if state in _steps.FINISHED:
                return _end(kubeflow, run, facts)
        left = timeout_s - (time.monotonic() - began) if timeout_s else poll_s
        if timeout_s and left <= 0:
            sys.stderr.write(
                f"run {run} did not finish in {timeout_s:.0f} s and goes on: {kubeflow.run_url(run)}\n"
                f"  end it with: pipeline.py cancel {run}\n"
            )
            return EXIT_TIMEOUT
        time.sleep(min(poll_s, left))


def _lost(kubeflow: Kubeflow, run: str, error: RoboliftError) -> int:
    """Say that a run is out of sight. Not with the error's exit code: to a script that means nothing was started."""
    sys.stderr.write(
        f"error: {error}\n"
        f"run {run} was started and goes on, and cannot be followed any more: {kubeflow.run_url(run)}\n"
        f"  wait again with: pipeline.py status {run} --wait\n"
    )
    return EXIT_TIMEOUT


def _end(kubeflow: Kubeflow, run: str, facts: Any) -> int:
    workflow = _workflow.read(kubeflow, run)
    steps = _steps.read(facts, workflow)
    if reason := _steps.reason_of(facts):
        print(f"error: {kubeflow.redact(reason)}")
    for line in _runs.report_lines(kubeflow, run, facts, steps, workflow):
        print(line)
    code = _runs.exit_code(_steps.state_of(facts))
    failed = [step for step in _steps.worth_showing(steps) if step.state == "FAILED"]
    if code and failed:
        print(f"log:   pipeline.py logs {run} --step {failed[0].name}")
    return code


def wait(kubeflow: Kubeflow, run: str, patience: Patience, *, known: bool = False) -> int:
    """Wait for a run to finish.

    Args:
        kubeflow: Connection.
        run: Id of the run.
        patience: How long to wait.
        known: Whether the run is known to be there, as after starting it.

    Returns:
        0 finished, 1 failed or ended, 3 not finished in time or no longer to be followed, 130 left running by Ctrl-C.

    Raises:
        RoboliftError: If the server never told of the run and it isn't known to be there.
    """
    try:
        return _poll(kubeflow, run, patience, known=known)
    except KeyboardInterrupt:
        return _interrupted(kubeflow, run)


def _interrupted(kubeflow: Kubeflow, run: str) -> int:
    end = False
    try:
        if sys.stdin.isatty():
            sys.stderr.write("\n")
            end = _runs.confirmed(f"End run {run}? Otherwise it goes on without us.")
        if end:
            _runs.terminate(kubeflow, run)
            print(f"ending run {run}")
            return _runs.EXIT_FAILED
    except KeyboardInterrupt:
        sys.stderr.write("\n")
    except RoboliftError as error:
        sys.stderr.write(f"error: {error}\n")
    sys.stderr.write(f"left running: {kubeflow.run_url(run)}\n  wait again with: pipeline.py status {run} --wait\n")
    return EXIT_INTERRUPTED
