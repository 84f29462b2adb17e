"""CPU time from nothing to the first answer of the command line, against the libraries it can't do without.

    python benchmarks/cold_start.py [--repeats 7]

Prints one row a command: the least user + system CPU time of the repeats, and its ratio to importing NumPy and
pyarrow.parquet. CPU time and the minimum, because other work on the machine only ever adds.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

BASELINE = ("import numpy, pyarrow.parquet", ["-c", "import numpy, pyarrow.parquet"])
COMMANDS = [
    ("python", ["-c", ""]),
    ("robolift label_advantage --help", ["-m", "robolift", "label_advantage", "--help"]),
    ("robolift label_advantage --describe", ["-m", "robolift", "label_advantage", "--describe"]),
    ("robolift train_value --describe", ["-m", "robolift", "train_value", "--describe"]),
    ("robolift train_policy --describe", ["-m", "robolift", "train_policy", "--describe"]),
]


def cpu_seconds(words: list[str]) -> float:
    """Run Python with ``words`` and return the CPU time it took."""
    before = os.times()
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    return after.children_user - before.children_user + after.children_system - before.children_system


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    baseline = min(cpu_seconds(BASELINE[1]) for _ in range(repeats))
    print(f"{'command':40} {'cpu s':>7} {'ratio':>6}")
    for name, words in [BASELINE, *COMMANDS]:
        least = min(cpu_seconds(words) for _ in range(repeats))
        print(f"{name:40} {least:7.2f} {least / baseline:6.2f}")


if __name__ == "__main__":
    main()
