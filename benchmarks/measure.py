"""Runs a benchmark: prepares its data once, then round after round each way in turn."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from benchmarks.harness import Benchmark, Round, Way

ROOT = Path(__file__).parents[1]


@dataclass
class Measured:
    """What a benchmark gave.

    Attributes:
        rounds: The numbers of every way that can run here, round by round; less of a way that failed.
        failures: What failed and how, a line each; what it printed was shown.
    """

    rounds: list[Round] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


def measure(module: str, benchmark: Benchmark, *, rounds: int, publish: bool = False) -> Measured:
    """Run every way that can run here; one that fails is not run again, and ends none of the others.

    If nothing failed the benchmark publishes what it measured, if told so.
    """
    ways, found = [way for way in benchmark.ways if way.available], Measured()
    if not ways:
        return found
    with tempfile.TemporaryDirectory(prefix="robolift-bench-", ignore_cleanup_errors=True) as folder:
        if _run(module, benchmark, None, Path(folder), found) is None:
            return found
        with tqdm(total=rounds * len(ways), desc=benchmark.name, unit="way", disable=None) as bar:
            for _ in range(rounds):
                numbers = {way: _run(module, benchmark, way, Path(folder), found) for way in ways}
                found.rounds.append({way.name: told for way, told in numbers.items() if told is not None})
                ways = [way for way, told in numbers.items() if told is not None]
                bar.update(len(numbers))
        if publish and benchmark.publish is not None and not found.failures:
            benchmark.publish(Path(folder))
    return found


def _run(module: str, benchmark: Benchmark, way: Way | None, folder: Path, found: Measured) -> dict[str, float] | None:
    """Run one way, or prepare the data, in a process of its own; None if it failed."""
    name, result = way.name if way else "", folder / "numbers.json"
    result.unlink(missing_ok=True)
    words = [module, benchmark.name, name, str(folder), str(result)]
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "OMP_NUM_THREADS": str(way.threads if way else 2), "PYTHONPATH": path}
    before, start = os.times(), time.perf_counter()
    told = finish([sys.executable, "-m", "benchmarks.child", *words], environment, benchmark.timeout_s)
    wall, after = time.perf_counter() - start, os.times()
    if told:
        found.failures.append(f"{benchmark.name}: {name or 'the preparation'} {told}")
        return None
    if way is None:
        return {}
    numbers: dict[str, float] = json.loads(result.read_text())
    if way.whole_process:
        spent = after.children_user - before.children_user + after.children_system - before.children_system
        numbers |= {"cpu_s": spent, "wall_s": wall}
    return numbers


def finish(command: list[str], environment: dict[str, str], timeout_s: float) -> str:
    """Run a command to its end and return what went wrong, nothing if it did well.

    It leads a group of processes, all of which are gone with it when it takes too long or this process is interrupted.
    """
    with subprocess.Popen(command, env=environment, start_new_session=True) as process:
        try:
            code = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return f"took more than {timeout_s:g} s"
        else:
            return f"ended with exit code {code}" if code else ""
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
