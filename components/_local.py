"""Run a compiled pipeline on this machine: the same graph and components, each step a process, no cluster."""

import contextlib
import copy
import io
import json
import os
import re
import sys
import time
import warnings
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, TextIO

from kfp import local
from kfp.dsl.structures import ComponentSpec
from kfp.dsl.yaml_component import YamlComponent

from components import _step_server
from components._step import ADDRESS_VARIABLE
from robolift import storage
from robolift.errors import DataError, RoboliftError, UsageError

REPOSITORY = Path(__file__).parent.parent
ERROR_LINE = re.compile(r"robolift\.errors\.(DataError|UsageError): (.*)")
ANSI = re.compile(r"\x1b\[[0-9;]*m")


class StepFailedError(RoboliftError):
    """A step of the pipeline failed for a reason that isn't the user's; the log has it."""


class Console(io.TextIOBase):
    """Takes all that the steps print: everything into the log file, what a person wants to see onto the terminal."""

    def __init__(self, log: TextIO, terminal: TextIO) -> None:
        """Write to ``log`` and ``terminal``."""
        self.log = log
        self.terminal = terminal
        self.started: Dict[str, float] = {}
        self.timings: List[Dict[str, Any]] = []
        self.report_uri = ""
        self.error: RoboliftError | None = None
        self._pending = ""
        self._mending: List[str] | None = None

    def writable(self) -> bool:
        """Tell that text can be written."""
        return True

    def write(self, text: str) -> int:
        """Take a piece of output, cut into lines."""
        self.log.write(text)
        self._pending += text
        *lines, self._pending = self._pending.split("\n")
        for line in lines:
            self._line(ANSI.sub("", line))
        return len(text)

    def flush(self) -> None:
        """Flush the log and the terminal."""
        self.log.flush()
        self.terminal.flush()

    def say(self, text: str) -> None:
        """Print a line on the terminal."""
        self.terminal.write(text + "\n")
        self.terminal.flush()

    def _line(self, line: str) -> None:
        body = line.strip()
        if body.startswith("{") and '"event"' in body:
            with contextlib.suppress(json.JSONDecodeError):
                self._event(json.loads(body))
        elif found := ERROR_LINE.search(body):
            kind = UsageError if found[1] == "UsageError" else DataError
            self.error = kind(found[2])
            self._mending = [found[2]]
        elif self._mending is not None and line.startswith(("  ", "\t")) and body:
            self._mending.append("  " + body)
            assert self.error is not None
            self.error.args = ("\n".join(self._mending),)
        else:
            self._mending = None

    def _event(self, event: Mapping[str, Any]) -> None:
        name, stage = event.get("event"), event.get("stage")
        if event.get("logger") == "progress":
            self.say(
                f"      {name}: {event.get('done')}/{event.get('total')} {event.get('unit')}, {event.get('per_s')}/s"
            )
        elif stage and name == "started":
            self.started[event["uri"]] = time.monotonic()
            self.say(f"  ▸ {stage}")
        elif stage and name in ("finished", "reused"):
            took = time.monotonic() - self.started.pop(event["uri"], time.monotonic())
            self.timings.append(
                {"stage": stage, "uri": event["uri"], "reused": name == "reused", "seconds": round(took, 1)}
            )
            self.say(f"  ✓ {stage:<20} {'reused' if name == 'reused' else f'{took:.1f} s'}")
            if stage == "write_report":
                self.report_uri = event["uri"]
        elif event.get("level") == "warning":
            self.say(f"  ! {name} {event.get('detail', '')}".rstrip())


def _environment() -> Dict[str, str]:
    """Return what lets steps import this repository, on one thread of arithmetic: results must not depend on cores."""
    return {
        "PYTHONPATH": os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH", "")])),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
        "PYTHONWARNINGS": "ignore",
    }


@contextlib.contextmanager
def _variables(wanted: Mapping[str, str]) -> Iterator[None]:
    before = {key: os.environ.get(key) for key in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


def for_this_machine(specification: Mapping[str, Any], *, served: bool) -> YamlComponent:
    """Load a compiled pipeline so that its steps fail at once: on this machine a wait of minutes mends nothing.

    Args:
        specification: The pipeline's; it stays as it is.
        served: Whether the steps are run by the step server, rather than each from nothing.
    """
    spec = copy.deepcopy(dict(specification))
    for component in (spec["root"], *spec["components"].values()):
        for task in component.get("dag", {}).get("tasks", {}).values():
            task.pop("retryPolicy", None)
    for executor in spec["deploymentSpec"]["executors"].values() if served else ():
        container = executor["container"]
        container["command"] = _step_server.command(container["command"])
    # As kfp.components.load_component_from_file does it after seconds of reading YAML.
    return YamlComponent(ComponentSpec.from_ir_dicts(spec, {}), component_yaml=json.dumps(spec))


def run(
    specification: Mapping[str, Any], parameters: Mapping[str, Any], run_dir: Path, *, served: bool = True
) -> Console:
    """Run a compiled pipeline with :class:`kfp.local.SubprocessRunner`.

    Args:
        specification: The compiled pipeline's.
        parameters: Checked arguments.
        run_dir: Local folder for KFP's own files and ``run.log``.
        served: Whether steps are forks of one process, where that is possible, rather than each started from nothing.

    Returns:
        What was seen: timings per stage and the report's address.

    Raises:
        UsageError: If a step refused its configuration.
        DataError: If a step refused its data.
        StepFailedError: If a step failed otherwise.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    log_path = run_dir / "run.log"
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(log_path.open("w", encoding="utf-8"))
        stack.enter_context(_variables(_environment()))
        server = stack.enter_context(_step_server.serving(log.fileno())) if served else ""
        stack.enter_context(_variables({ADDRESS_VARIABLE: server}))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        console = Console(log, sys.stdout)
        local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(run_dir / "kfp"), raise_on_error=True)
        graph = for_this_machine(specification, served=bool(server))
        try:
            with contextlib.redirect_stdout(console):
                graph(**parameters)
        except RuntimeError as error:
            if console.report_uri:  # its page says why a later step refused what came before
                report = storage.join(console.report_uri, "report.html")
                console.say(f"  report: {storage.local_path(report) or report}")
            raise console.error or StepFailedError(f"{error}\n  log: {log_path}") from error
    return console
