r"""Labelling as kai0's published script does it, against ours, on the same files.

    ROBOLIFT_KAI0=<copy of kai0> ROBOLIFT_KAI0_PYTHON=<python with pandas, pyarrow and tqdm> \
        python benchmarks/labeling_kai0.py [--episodes 1000] [--frames 1000] [--repeats 3]

CPU seconds (user + system, all threads) without the start of the interpreter and its imports, medians of interleaved
repeats, and peak memory of a process of its own. The script is timed whole; with its files already in memory and never
written, which leaves its arithmetic; and beside it a plain reading and rewriting of the same files with pyarrow. Our
stage reads, checks, labels, hashes and publishes: from the columns that kai0's prediction left in 1,000 files, and from
the table in which our own prediction leaves them, as the pipeline does. Its arithmetic is ``decide``. Labels are
compared before the timing. The peer's versions are those of the Python named; kai0 locks NumPy 1.26, pandas 2.2.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from labeling import publish_values, write_dataset

from robolift import logging
from robolift.manifest import Manifest
from robolift.stages.label_decision import decide
from robolift.stages.label_sources import Sources
from robolift.stages.stage import Inputs, execute, parse_config

CASES = {"one cut": "--threshold 30", "two stages": "--threshold 30 --stage-nums 2"}
SCRIPT = Path("stage_advantage", "annotation", "discretize_advantage.py")
# Runs kai0's main(), files and all or only what it computes, and prints what that took.
DRIVER = """
import contextlib, glob, importlib.util, io, json, sys, time
import pandas as pd
script, mode, folder, *flags = sys.argv[1:]
spec = importlib.util.spec_from_file_location("script", script)
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
module.tqdm = lambda files: files
if mode == "arithmetic":
    held = {path: pd.read_parquet(path) for path in sorted(glob.glob(folder + "/data/chunk-*/*.parquet"))}
    pd.read_parquet = held.__getitem__
    pd.DataFrame.to_parquet = lambda *_, **__: None
sys.argv = [script, folder, *flags]
begin = time.process_time()
with contextlib.redirect_stdout(io.StringIO()):
    module.main()
spent = time.process_time() - begin
# ru_maxrss would be the parent's at the moment of the fork.
peak = next(int(line.split()[1]) / 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps({"cpu_s": spent, "peak_mb": peak}))
"""
OURS = """
import json, sys, time
import pyarrow as pa
from robolift import logging
from robolift.stages.stage import execute, find
find("label_advantage")
logging.configure(level="warning")
pa.set_cpu_count(1)
dataset, values, root, flags = sys.argv[1:]
begin = time.process_time()
given = {"dataset": dataset, **({"values": values} if values else {})}
config = {"preset": "kai0_legacy", "kai0": flags}
if values:
    config["stage_progress_column"] = "value"
execute("label_advantage", config, given, root)
spent = time.process_time() - begin
# ru_maxrss would be the parent's at the moment of the fork.
peak = next(int(line.split()[1]) / 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps({"cpu_s": spent, "peak_mb": peak}))
"""


def child(*command: str) -> dict[str, float]:
    """Run a process that prints its measurements as its last line."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def rewrite(source: Path, target: Path) -> dict[str, float]:
    """Read every file and write it again."""
    begin = time.process_time()
    for file in sorted(source.glob("data/chunk-*/*.parquet")):
        pq.write_table(pq.read_table(file), target / file.name)
    return {"cpu_s": time.process_time() - begin, "peak_mb": 0.0}


def arithmetic(dataset: Manifest, flags: str) -> Callable[[], dict[str, float]]:
    """Return a call that labels from arrays in memory."""
    config: Any = parse_config("label_advantage", {"preset": "kai0_legacy", "kai0": flags})
    sources = Sources.open(Inputs(dataset=[dataset]), config.columns_read(predicted=False))
    task, role = sources.tasks(), sources.roles()

    def run() -> dict[str, float]:
        begin = time.process_time()
        decide(config, sources, task, role)
        return {"cpu_s": time.process_time() - begin, "peak_mb": 0.0}

    return run


def check_equal(copy: Path, dataset: Manifest, flags: str, root: str) -> None:
    """Compare the labels that the script left in ``copy`` with ours, frame for frame."""
    files = sorted(copy.glob("data/chunk-*/*.parquet"))
    theirs = np.concatenate([pq.read_table(file, columns=["task_index"])["task_index"].to_numpy() for file in files])
    made = execute("label_advantage", {"preset": "kai0_legacy", "kai0": flags}, {"dataset": dataset.uri}, root)
    ours = made.table("labels")["advantage_label"].to_numpy(zero_copy_only=False) == "positive"
    assert np.array_equal(theirs == 1, ours), flags


def main() -> None:
    """Make the data, compare the labels, take the times in turn, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=1000)
    parser.add_argument("--frames", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    python, script = os.environ["ROBOLIFT_KAI0_PYTHON"], str(Path(os.environ["ROBOLIFT_KAI0"]) / SCRIPT)
    logging.configure(level="warning")
    pa.set_cpu_count(1)
    taken: dict[tuple[str, str], list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory(prefix="robolift-bench-") as folder:
        source, copy, target = Path(folder, "source"), Path(folder, "copy"), Path(folder, "target")
        target.mkdir()
        write_dataset(source, args.episodes, args.frames)
        root = str(Path(folder, "runs"))
        dataset = execute("import_dataset", {"dataset_uri": str(source)}, {}, root)
        predicted = publish_values(root, dataset, low=0.0).uri
        computing = {case: arithmetic(dataset, flags) for case, flags in CASES.items()}
        for turn in range(args.repeats):
            for case, flags in CASES.items():
                shutil.rmtree(copy, ignore_errors=True)
                shutil.copytree(source, copy)
                words = ("-c", DRIVER, script)
                calls: dict[str, Callable[[], dict[str, float]]] = {
                    "kai0": lambda words=words, flags=flags: child(python, *words, "whole", str(copy), *flags.split()),
                    "ours": lambda flags=flags, at=f"{root}-{turn}": child(
                        sys.executable, "-c", OURS, dataset.uri, "", at, flags
                    ),
                    "ours, own table": lambda flags=flags, at=f"{root}-{turn}": child(
                        sys.executable, "-c", OURS, dataset.uri, predicted, at, flags
                    ),
                    "rewrite": lambda: rewrite(source, target),
                    "kai0 arithmetic": lambda words=words, flags=flags: child(
                        python, *words, "arithmetic", str(copy), *flags.split()
                    ),
                    "our arithmetic": computing[case],
                }
                for name, call in calls.items():
                    taken.setdefault((case, name), []).append(call())
                if turn == 0:
                    check_equal(copy, dataset, flags, root)
    print(f"{args.episodes * args.frames:,} frames in {args.episodes:,} files, medians of {args.repeats}\n")
    for (case, name), found in taken.items():
        seconds, peak = (statistics.median(one[key] for one in found) for key in ("cpu_s", "peak_mb"))
        print(f"{case:12} {name:18} {seconds:9.3f} CPU s" + (f" {peak:8.0f} MB" if peak else ""))


if __name__ == "__main__":
    main()
