"""What a command takes before it does anything: ``--help``, ``--describe``, and a label-only stage up to its work.

Against the libraries without which no stage can read a table, ``import numpy, pyarrow.parquet`` in an interpreter of
its own: a start can't be quicker than that once it looks at data, and should not take much longer. Every command is a
process of its own, CPU time counts its interpreter and imports. All read compiled bytecode, ours and that of libraries,
which the preparation leaves in a folder that only this benchmark uses: otherwise whoever came first would pay for it.
"""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

from benchmarks.harness import Benchmark, Goal, Way

ROOT = Path(__file__).parents[1]
DATASET = ROOT / "tests" / "fixtures" / "lerobot_v21"
LIBRARIES = ("-c", "import numpy, pyarrow.parquet")
HELP = ("-m", "robolift", "--help")
DESCRIBED = ("label_returns", "label_advantage", "export_dataset", "train_value", "train_policy")


def python(folder: Path, *words: str) -> None:
    """Run a command in an interpreter of its own, with the bytecode of ``folder``."""
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(folder / "bytecode")}
    # The latter is ours: a benchmark that imports components would otherwise have all commands inherit it.
    for variable in ("PYTHONDONTWRITEBYTECODE", "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"):
        environment.pop(variable, None)
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL, cwd=ROOT, env=environment)


def command(words: tuple[str, ...], folder: Path) -> None:
    """Run a command of which nothing depends on data."""
    python(folder, *words)


def start(folder: Path) -> None:
    """Have a label-only stage read its inputs and plan its output, and stop before the work."""
    (imported,) = (folder / "import_dataset").iterdir()
    told = ("--set", f"output_root={folder}", "--set", f"inputs.dataset={imported}")
    python(folder, "-m", "robolift", "label_returns", *told, "--dry-run")


def prepare(folder: Path) -> None:
    """Import the dataset and compile what the commands import."""
    root = ("--set", f"output_root={folder}", "--set", f"dataset_uri={DATASET}")
    python(folder, "-m", "robolift", "import_dataset", *root, "--set", "outcome=success")
    for way in BENCHMARK.ways:
        way.work(folder)


def describe(stage: str) -> tuple[str, ...]:
    """Return the command that prints a stage's configuration."""
    return ("-m", "robolift", stage, "--describe")


BENCHMARK = Benchmark(
    name="cold",
    prepare=prepare,
    ways=(
        Way("libraries", partial(command, LIBRARIES)),
        Way("help", partial(command, HELP)),
        Way("stage help", partial(command, ("-m", "robolift", "label_advantage", "--help"))),
        Way("label_returns start", start),
        *(Way(stage, partial(command, describe(stage))) for stage in DESCRIBED),
    ),
    goals=(
        Goal("robolift --help, wall s", over=("help",), of="wall_s", at_most=0.3),
        Goal("robolift --help, CPU s", over=("help",), of="cpu_s", at_most=0.3),
        Goal("CPU of a stage's --help / libraries", over=("stage help", "libraries"), of="cpu_s", at_most=2),
        Goal(
            "CPU of label_returns up to its work / libraries", ("label_returns start", "libraries"), "cpu_s", at_most=2
        ),
        *(
            Goal(f"CPU of {stage} --describe / libraries", over=(stage, "libraries"), of="cpu_s", at_most=2)
            for stage in DESCRIBED
        ),
    ),
    rounds=7,
)
