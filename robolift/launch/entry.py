"""First process of a training pod: ``python -m robolift.launch.entry STAGE --config JOB``.

It runs ``python -m robolift STAGE --config JOB`` and tells the cluster by its exit code what to do about its end:

* 0: done; 64, 65: the user's to mend, running it again can't help;
* 143: it was stopped (SIGTERM), lost another process of the job or was killed; made anew, it goes on from its last
  state;
* anything else is a defect, which is not run again either.

torchrun ends with 1 in all these cases, so its own code could not tell them apart. Nothing in the cluster bounds how
often a pod is made anew; attempts that do not get any further are counted here, in ``attempts.json`` beside the state.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from robolift import logging, storage
from robolift.errors import EXIT_DATA, EXIT_TERMINATED, EXIT_USAGE, DataError, RoboliftError

MAX_ATTEMPTS = 3
ATTEMPTS_FILE = "attempts.json"
MANIFEST_FILE = "manifest.json"
LATEST_FILE = "latest.json"
"""Where a training stage says which step its saved state is of."""
JOB_VARIABLE = "ROBOLIFT_JOB"
FIRST_SIGNAL_CODE = 128


def exit_code(code: int, *, asked_to_stop: bool) -> int:
    """Return the pod's exit code for a child that ended with ``code``, negative if a signal ended it."""
    killed = code < 0 or code >= FIRST_SIGNAL_CODE
    interrupted = asked_to_stop and code not in (0, EXIT_USAGE, EXIT_DATA)
    return EXIT_TERMINATED if killed or interrupted else code


def is_first_pod(environ: Mapping[str, str] = os.environ) -> bool:
    """Tell whether this is the pod of its job that counts attempts and publishes."""
    return environ.get("PET_NODE_RANK", "0") == "0"


def count_attempt(work_uri: str, job: str) -> None:
    """Count the attempts of ``job`` that started from one and the same step.

    Another job is another run, whose user may have mended the cause: it starts at none.

    Raises:
        DataError: If there were three of them already.
    """
    attempts_uri, latest_uri = (storage.join(work_uri, name) for name in (ATTEMPTS_FILE, LATEST_FILE))
    step = int(storage.read_json(latest_uri)["step"]) if storage.exists(latest_uri) else 0
    before = storage.read_json(attempts_uri) if storage.exists(attempts_uri) else {}
    attempts = int(before["attempts"]) if (before.get("job"), before.get("step")) == (job, step) else 0
    if attempts >= MAX_ATTEMPTS:
        raise DataError(
            f"{attempts} attempts of this job ended without getting past step {step}",
            where=work_uri,
            expected="at least one saved state an attempt",
            mend="look into the logs of the failed pods: too little memory? a preempted node each time? "
            "save more often (save_every), then run again",
        )
    document = {"job": job, "step": step, "attempts": attempts + 1}
    storage.write_bytes(attempts_uri, storage.to_json_bytes(document))


def is_published(job_uri: str) -> bool:
    """Tell whether the output of a job is there; then nothing of its work is left, its ``job.json`` neither."""
    root, _, stage, digest, _ = job_uri.rsplit("/", 4)
    return storage.exists(storage.join(root, stage, digest, MANIFEST_FILE))


class Child:
    """One process that is told when this one is told to stop.

    Attributes:
        asked_to_stop: Whether SIGTERM or SIGINT has come.
    """

    def __init__(self) -> None:
        self.asked_to_stop = False
        self._process: subprocess.Popen[bytes] | None = None

    def stop(self, *_: Any) -> None:
        """Take note, and hand SIGTERM on; a signal handler."""
        self.asked_to_stop = True
        if self._process is not None:
            self._process.terminate()

    def run(self, command: Sequence[str]) -> int:
        """Run ``command`` to its end and return how it ended."""
        self._process = subprocess.Popen(command)
        if self.asked_to_stop:  # while it was being started
            self._process.terminate()
        return self._process.wait()


def main(argv: Sequence[str] | None = None) -> int:
    """Run a stage as the first process of a pod and return the pod's exit code."""
    child = Child()
    # At once: without a handler the first process of a container never notices SIGTERM.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, child.stop)
    parser = argparse.ArgumentParser(prog="python -m robolift.launch.entry", description="Run one stage in a pod.")
    parser.add_argument("stage", help="its name")
    parser.add_argument("--config", required=True, metavar="FILE", help="the job, at any address")
    args = parser.parse_args(argv)
    try:
        logging.configure()
        if is_published(args.config):
            return 0  # a pod that was made anew after the others had finished
        if is_first_pod():
            count_attempt(args.config.rpartition("/")[0], os.environ.get(JOB_VARIABLE, ""))
    except RoboliftError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    if child.asked_to_stop:
        return EXIT_TERMINATED
    code = child.run([sys.executable, "-m", "robolift", args.stage, "--config", args.config])
    return exit_code(code, asked_to_stop=child.asked_to_stop)


if __name__ == "__main__":
    sys.exit(main())
