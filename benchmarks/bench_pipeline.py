"""What pipelines take beyond the work of their steps: to be compiled, and per step of a run on this machine.

Compiling is compared with a bare ``import kfp``, which any program that compiles a pipeline pays. A local run is a
chain of twelve real steps on a dataset of four episodes, through the command line's own function: once so that each
works and once so that each finds its work done, with the start of what runs them in the time. Beside it the same chain
as KFP's local runner starts it, an interpreter a step, and twelve steps of KFP's that only return their argument, the
least that its runner takes. Bytecode is compiled beforehand for all.
"""

import contextlib
import io
import os
import tempfile
import time
from functools import partial
from pathlib import Path

import components  # noqa: F401  (imports KFP without its client)

# isort: split

from kfp import dsl

from benchmarks.bench_cold import DATASET, python
from benchmarks.harness import Benchmark, Goal, Way
from components import _local
from components._cli import specification
from components.import_dataset.component import import_dataset
from components.label_returns.component import label_returns

STEPS = 12
COMPILE_ALL = """
import tempfile, pathlib
from pipeline import PIPELINES
from components._cli import compile_to
with tempfile.TemporaryDirectory() as folder:
    for name, pipeline in PIPELINES.items():
        compile_to(pipeline, pathlib.Path(folder, f"{name}.yaml"))
"""


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def give_back(text: str) -> str:
    """Return the argument."""
    return text


def bare_kfp(folder: Path) -> None:
    """Import KFP."""
    python(folder, "-c", "import kfp")


def compile_all(folder: Path) -> None:
    """Compile every pipeline in one process."""
    python(folder, "-c", COMPILE_ALL)


def compile_largest(folder: Path) -> None:
    """Compile recap as `make compile` does."""
    python(folder, "pipeline.py", "compile", "recap", "--output", str(folder / "recap.yaml"))


@dsl.pipeline(name="nothing")
def nothing(output_root: str, source_uri: str) -> None:
    """Hand an argument through twelve steps."""
    last = give_back(text=source_uri)
    for _ in range(STEPS - 1):
        last = give_back(text=last.output)


@dsl.pipeline(name="chain")
def chain(output_root: str, source_uri: str) -> None:
    """Import a dataset, and label it eleven times, each time differently."""
    told = {"import_dataset": {"outcome": "success"}}
    last = import_dataset(source_uri=source_uri, previous_uri="", iteration=1, stages=told, output_root=output_root)
    dataset = last.outputs["dataset"]
    for number in range(STEPS - 1):
        stages = {"label_returns": {"failure_cost": 1 + number / 100}}
        last = label_returns(dataset=dataset, stages=stages, output_root=output_root).after(last)


def run(kind: str, folder: Path) -> dict[str, float]:
    """Run the chain and return its seconds per step, without what it takes to compile it."""
    os.environ["PYTHONPYCACHEPREFIX"] = str(folder / "bytecode")
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    spec = specification(nothing if kind == "KFP alone" else chain)
    with tempfile.TemporaryDirectory() as place:
        root = folder / "reused" if kind == "reused" else Path(place, "runs")
        parameters = {"output_root": str(root), "source_uri": str(DATASET)}
        wall, cpu = time.perf_counter(), sum(os.times()[:4])
        with contextlib.redirect_stdout(io.StringIO()):
            served = kind not in ("an interpreter a step", "KFP alone")
            console = _local.run(spec, parameters, Path(place, "logs"), served=served)
        took = {"wall_s": time.perf_counter() - wall, "cpu_s": sum(os.times()[:4]) - cpu}
    found = [timing["reused"] for timing in console.timings]
    if kind != "KFP alone" and found != [kind == "reused"] * STEPS:
        raise RuntimeError(f"{kind}: {len(found)} steps told of themselves, {sum(found)} found their work done")
    return {name: seconds / STEPS for name, seconds in took.items()}


def prepare(folder: Path) -> None:
    """Do the chain's work once, and compile what is imported."""
    for way in BENCHMARK.ways:
        if way.name != "reused":
            way.work(folder)
    parameters = {"output_root": str(folder / "reused"), "source_uri": str(DATASET)}
    with contextlib.redirect_stdout(io.StringIO()):
        _local.run(specification(chain), parameters, folder / "logs")


RUNS = ("12 steps", "reused", "an interpreter a step", "KFP alone")
BENCHMARK = Benchmark(
    name="pipeline",
    prepare=prepare,
    ways=(
        Way("import kfp", bare_kfp),
        Way("compile all", compile_all),
        Way("compile recap", compile_largest),
        *(Way(kind, partial(run, kind)) for kind in RUNS),
    ),
    goals=(
        Goal(
            "CPU of compiling all pipelines / import kfp", over=("compile all", "import kfp"), of="cpu_s", at_most=1.5
        ),
        Goal("compiling the largest pipeline, wall s", over=("compile recap",), of="wall_s", at_most=3),
        Goal("local run, wall s a step", over=("12 steps",), of="wall_s", at_most=0.3),
        Goal("local run that finds all done, wall s a step", over=("reused",), of="wall_s", at_most=0.3),
        Goal("CPU of a local run / an interpreter a step", over=("12 steps", "an interpreter a step"), of="cpu_s"),
    ),
)
