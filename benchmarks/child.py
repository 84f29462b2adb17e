"""Does one way of one benchmark in a process of its own and writes down what it took.

python -m benchmarks.child MODULE BENCHMARK WAY FOLDER RESULT; an empty WAY prepares the data.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from benchmarks.harness import load
from benchmarks.taken import MB, peak_bytes, timed


def main(module: str, name: str, way: str, folder: str, result: str) -> None:
    """Do it."""
    benchmark = next(found for found in load(module)[1] if found.name == name)
    if not way:
        if benchmark.prepare is not None:
            benchmark.prepare(Path(folder))
        return
    work, told = benchmark.way(way).work, {}
    numbers = timed(lambda: told.update(work(Path(folder)) or {}))
    Path(result).write_text(json.dumps({**numbers, "peak_mb": peak_bytes() / MB, **told}))


if __name__ == "__main__":
    main(*sys.argv[1:])
