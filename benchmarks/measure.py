"""Runs a benchmark: prepares its data once, then round after round each way in turn."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tqdm import tqdm

from benchmarks.harness import Benchmark, Round, Way

ROOT = Path(__file__).parents[1]


def measure(module: str, benchmark: Benchmark, *, rounds: int, publish: bool = False) -> list[Round]:
    """Return the numbers of every way that can run here, round by round; publish what the benchmark says, if told so.

    Raises:
        subprocess.CalledProcessError: If a way fails; what it printed was shown.
    """
    ways = [way for way in benchmark.ways if way.available]
    found: list[Round] = []
    with tempfile.TemporaryDirectory(prefix="robolift-bench-") as folder:
        _run(module, benchmark, None, Path(folder))
        with tqdm(total=rounds * len(ways), desc=benchmark.name, unit="way", disable=None) as bar:
            for _ in range(rounds):
                found.append({})
                for way in ways:
                    found[-1][way.name] = _run(module, benchmark, way, Path(folder))
                    bar.update()
        if publish and benchmark.publish is not None:
            benchmark.publish(Path(folder))
    return found


def _run(module: str, benchmark: Benchmark, way: Way | None, folder: Path) -> dict[str, float]:
    """Run one way, or prepare the data, in a process of its own."""
    result = folder / "numbers.json"
    result.unlink(missing_ok=True)
    words = [module, benchmark.name, way.name if way else "", str(folder), str(result)]
    threads = str(way.threads if way else 2)
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "PYTHONPATH": path}
    before, start = os.times(), time.perf_counter()
    subprocess.run([sys.executable, "-m", "benchmarks.child", *words], env=environment, check=True)
    wall, after = time.perf_counter() - start, os.times()
    if way is None:
        return {}
    numbers: dict[str, float] = json.loads(result.read_text())
    if way.whole_process:
        spent = after.children_user - before.children_user + after.children_system - before.children_system
        numbers |= {"cpu_s": spent, "wall_s": wall}
    return numbers
