"""Runs one stage by its own door in a process of its own, and says what that took.

python -m benchmarks.cost_runs STAGE CONFIG RESULT; interpreter and imports count, as they do in a pod.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Run:
    """What one process of a stage took.

    Attributes:
        uri: Its output.
        cpu_s: User and system, children included.
        peak_bytes: Greatest resident memory of the process.
        requests: What it asked of an object store, by operation, where that was counted.
    """

    uri: str
    cpu_s: float
    peak_bytes: float
    requests: Mapping[str, float] = field(default_factory=dict)


def run(
    stage: str, folder: Path, *, root: str, inputs: Mapping[str, Any], config: Mapping[str, Any], threads: int = 1
) -> Run:
    """Run ``stage`` anew.

    Raises:
        subprocess.CalledProcessError: If it fails; what it said was shown.
    """
    document, result = folder / "stage.json", folder / "taken.json"
    document.write_text(json.dumps({"output_root": root, "inputs": dict(inputs), "config": dict(config)}))
    result.unlink(missing_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT), "TMPDIR": str(folder)}
    words = [sys.executable, "-m", "benchmarks.cost_runs", stage, str(document), str(result)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.stderr.write(done.stderr[-4000:])
        done.check_returncode()
    return Run(uri=done.stdout.strip().splitlines()[-1], **json.loads(result.read_text()))


def main(stage: str, document: str, result: str) -> int:
    """Run the stage in this process and write down what it took."""
    from robolift.__main__ import main as command  # noqa: PLC0415

    code = command([stage, "--config", document])
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    Path(result).write_text(json.dumps({"cpu_s": sum(os.times()[:4]), "peak_bytes": max(peak, children) * 1024}))
    return code


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
