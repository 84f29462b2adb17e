"""What work takes of a process: CPU seconds, wall seconds, and memory. A megabyte is 1e6 bytes wherever one is told."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from pathlib import Path

MB = 1e6


def cpu_s() -> float:
    """Return the CPU seconds of this process and of those that it waited for."""
    return sum(os.times()[:4])


def peak_bytes() -> int:
    """Return the peak memory of this process or of the greatest that it waited for."""
    return max(own_peak_bytes(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)


def own_peak_bytes() -> int:
    """Return the peak memory of this process alone."""
    # ru_maxrss of this process would be its parent's at the moment of the fork.
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) * 1024


def timed(work: Callable[[], object]) -> dict[str, float]:
    """Do ``work`` and return its CPU and wall seconds, those of processes that it waited for included."""
    wall, cpu = time.perf_counter(), cpu_s()
    work()
    return {"cpu_s": cpu_s() - cpu, "wall_s": time.perf_counter() - wall}
