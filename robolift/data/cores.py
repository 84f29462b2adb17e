"""How many cores there are for this process: what numbers of processes and threads are by default, and no result is."""

from __future__ import annotations

import math
import os
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
"""In a container its own group lies here."""


def num_cores(cgroups: Path = CGROUPS) -> int:
    """Return the number of cores this process may run on, no more than its container may use, rounded up.

    A pod with ``limits.cpu: 4`` runs on every core of its node, for four cores' time in all.

    Args:
        cgroups: Where the files of the kernel's control groups lie.
    """
    # Not every system tells which cores a process may run on: macOS doesn't.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = _limit(cgroups)
    return cores if limit is None else min(cores, math.ceil(limit))


def _limit(cgroups: Path) -> float | None:
    """Return the limit in cores, None if there is none.

    https://docs.kernel.org/admin-guide/cgroup-v2.html, ``cpu.max``: "$MAX $PERIOD" in microseconds, or "max" without a
    limit; https://docs.kernel.org/scheduler/sched-bwc.html, version 1: a file for each, -1 without a limit.
    """
    try:
        words = (cgroups / "cpu.max").read_text().split()
    except OSError:
        try:
            words = [(cgroups / "cpu" / name).read_text().strip() for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")]
        except OSError:  # neither version, or not shown to this process
            return None
    quota, period = words
    return None if quota in ("max", "-1") else int(quota) / int(period)
