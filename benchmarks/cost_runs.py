"""Runs one stage by its own door in a process of its own, and says what that took.

python -m benchmarks.cost_runs STAGE CONFIG RESULT; interpreter and imports count, as they do in a pod.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.taken import cpu_s, peak_bytes

ROOT = Path(__file__).parents[1]
POLL_S, TIMEOUT_S = 0.1, 600.0


@dataclass(frozen=True)
class Run:
    """What one process of a stage took, or a part of its work by itself.

    Attributes:
        uri: Its output, if it makes one.
        cpu_s: User and system, children included.
        peak_bytes: Greatest resident memory of the process, or of it and its children together, as a pod pays for.
        requests: What it asked of an object store, by operation, where that was counted.
    """

    uri: str
    cpu_s: float
    peak_bytes: float = 0.0
    requests: Mapping[str, float] = field(default_factory=dict)


def run(
    stage: str, folder: Path, *, root: str, inputs: Mapping[str, Any], config: Mapping[str, Any], threads: int = 1
) -> Run:
    """Run ``stage`` anew.

    Raises:
        subprocess.CalledProcessError: If it fails; what it said was shown.
        subprocess.TimeoutExpired: If it hangs.
    """
    document, result = folder / "stage.json", folder / "taken.json"
    document.write_text(json.dumps({"output_root": root, "inputs": dict(inputs), "config": dict(config)}))
    result.unlink(missing_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT), "TMPDIR": str(folder)}
    words = [sys.executable, "-m", "benchmarks.cost_runs", stage, str(document), str(result)]
    with (folder / "stage.out").open("w+") as out, (folder / "stage.err").open("w+") as err:
        process = subprocess.Popen(words, env=environment, stdout=out, stderr=err)
        together = _watched(process)
        shown, complained = (Path(file.name).read_text() for file in (out, err))
    if process.returncode:
        sys.stderr.write(complained[-4000:])
        raise subprocess.CalledProcessError(process.returncode, words)
    taken = json.loads(result.read_text())
    return Run(uri=shown.strip().splitlines()[-1], cpu_s=taken["cpu_s"], peak_bytes=max(taken["peak_bytes"], together))


def _watched(process: subprocess.Popen[bytes]) -> float:
    """Wait for the end of a process; return the most that it and its children were seen to hold together, bytes.

    Raises:
        subprocess.TimeoutExpired: If it takes longer than any stage does here; it and its children are killed.
    """
    greatest, deadline = 0.0, time.monotonic() + TIMEOUT_S
    while True:
        try:
            process.wait(POLL_S)
        except subprocess.TimeoutExpired:
            if time.monotonic() > deadline:
                for member in reversed(_family(process.pid)):
                    os.kill(member, signal.SIGKILL)
                process.wait()
                raise
            if len(members := _family(process.pid)) > 1:
                greatest = max(greatest, sum(map(_held, members)))
        else:
            return greatest


def _family(pid: int) -> list[int]:
    """Return a process and all below it."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(member for child in children for member in _family(int(child)))]


def _held(pid: int) -> float:
    """Return the memory of a process, what it shares counted in parts."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # it has just ended
        return 0.0
    return next((float(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0.0)


def main(stage: str, document: str, result: str) -> int:
    """Run the stage in this process and write down what it took."""
    from robolift.__main__ import main as command  # noqa: PLC0415

    code = command([stage, "--config", document])
    Path(result).write_text(json.dumps({"cpu_s": cpu_s(), "peak_bytes": peak_bytes()}))
    return code


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
