"""Does one way of one benchmark in a process of its own and writes down what it took.

python -m benchmarks.child MODULE BENCHMARK WAY FOLDER RESULT; an empty WAY prepares the data.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path

from benchmarks.harness import load


def main(module: str, name: str, way: str, folder: str, result: str) -> None:
    """Do it."""
    benchmark = next(found for found in load(module)[1] if found.name == name)
    if not way:
        if benchmark.prepare is not None:
            benchmark.prepare(Path(folder))
        return
    work = benchmark.way(way).work
    wall, cpu = time.perf_counter(), _cpu_s()
    found = work(Path(folder)) or {}
    numbers = {"cpu_s": _cpu_s() - cpu, "wall_s": time.perf_counter() - wall, "peak_mb": _peak_mb()}
    Path(result).write_text(json.dumps({**numbers, **found}))


def _cpu_s() -> float:
    """Return the CPU seconds of this process and of those that it waited for."""
    return sum(os.times()[:4])


def _peak_mb() -> float:
    """Return the peak memory of this process or of the greatest that it waited for."""
    # ru_maxrss of this process would be its parent's at the moment of the fork.
    status = Path("/proc/self/status").read_text().splitlines()
    own = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    return max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) / 1024


if __name__ == "__main__":
    main(*sys.argv[1:])
