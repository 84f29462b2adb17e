"""Labelling a million frames, the N-step advantage of ten million, and an export that changes one column.

**labels**: 1,000 episodes of 1,000 frames, a file each (LeRobot v2.1), with the advantage in a column as kai0's
predictor leaves it; binary labels, ten slices, and two task stages with a cut each. The reference does what the public
labeller does (kai0 `discretize_advantage.py`): pandas reads every file whole to pool the advantages, reads it again,
and writes it with a new `task_index`; stages are found frame by frame in Python. kai0 itself runs beside it where
`ROBOLIFT_KAI0` names a copy of it and `ROBOLIFT_KAI0_PYTHON` a Python with its versions of pandas and pyarrow. Ours is
the whole stage: it checks each file against what was imported, reads the columns it needs, and publishes one table of
labels, hashed; the recordings stay as they are. Fair, because training reads either; who needs the labels inside the
files exports them, which is the third part. **labels_v30** is the same with a few packed files (LeRobot v3.0). Folders
are made before the clock starts, and all that was written is deleted after it stopped.

**nstep**: the N-step advantage of ten million frames, against the loop that its definition is, run on a hundredth of
them; per million frames, of the second of two calls, since the first takes memory that no loop of that length needs.

**export**: a dataset of our own making, 300 episodes, with the `task_index` of the labels, every other column and the
schema unchanged to the bit, against the same pandas rewrite, which keeps neither. Ours checks each file against what
was imported, copies the columns that stay as they are encoded, and hashes what it publishes. The rewrite computes its
labels, too: it reads all twice. Ours is given them; *label and export* computes them, and *pandas, given labels*
reads once and writes once.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.dataset  # noqa: F401  (brings pandas, whose start is then no part of anyone's work)
import pyarrow.parquet as pq

from benchmarks.harness import Benchmark, Goal, Way
from benchmarks.taken import timed
from robolift import logging
from robolift.data.lerobot_format import FeatureSpec
from robolift.data.lerobot_writer import LeRobotWriter
from robolift.labeling.advantage import nstep_advantage
from robolift.manifest import Manifest, load
from robolift.stages.stage import execute, find

EPISODES = int(os.environ.get("ROBOLIFT_BENCH_EPISODES", "1000"))
EXPORTED = min(EPISODES, 300)
LENGTH = 1000
LOOKAHEAD = 50
ADVANTAGE, PROGRESS = "absolute_advantage", "stage_progress_gt"
CASES = {
    "binary": "--threshold 30",
    "slices": "--threshold 30 --discretion-type n_slices --n-slices 10",
    "stages": "--threshold 30 --stage-nums 2",
}
FEATURES = {
    "observation.state": FeatureSpec("float32", (14,)),
    "action": FeatureSpec("float32", (14,)),
    ADVANTAGE: FeatureSpec("float32"),
    PROGRESS: FeatureSpec("float32"),
    "control_mode": FeatureSpec("string"),
    "intervention": FeatureSpec("int64"),
}
SCRIPT = Path("stage_advantage", "annotation", "discretize_advantage.py")
# Runs kai0's main() and prints what that took.
DRIVER = """
import contextlib, importlib.util, io, json, sys, time
script, folder, *flags = sys.argv[1:]
spec = importlib.util.spec_from_file_location("script", script)
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
module.tqdm = lambda files: files
sys.argv = [script, folder, *flags]
cpu, wall = time.process_time(), time.perf_counter()
with contextlib.redirect_stdout(io.StringIO()):
    module.main()
spent = {"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall}
# ru_maxrss would be the parent's at the moment of the fork.
peak = next(int(line.split()[1]) * 1024 / 1e6 for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps({**spent, "peak_mb": peak}))
"""
logging.configure(level="error")
logging.get_logger("labels")
for stage in ("label_advantage", "export_dataset"):  # its imports are no part of the work
    find(stage)


def write_dataset(folder: Path, version: str, episodes: int = EPISODES) -> None:
    """Write a dataset of successes with a random advantage."""
    rng = np.random.default_rng(0)
    writer = LeRobotWriter(folder, fps=30, features=FEATURES, cameras={}, robot_type="arm", version=version)
    for _ in range(episodes):
        columns = {
            "observation.state": rng.normal(size=(LENGTH, 14)).astype(np.float32),
            "action": rng.normal(size=(LENGTH, 14)).astype(np.float32),
            ADVANTAGE: rng.normal(size=LENGTH).astype(np.float32),
            PROGRESS: np.linspace(0, 1, LENGTH, dtype=np.float32),
            "control_mode": ["autonomous"] * LENGTH,
            "intervention": np.zeros(LENGTH, np.int64),
        }
        writer.add_episode(columns, videos={}, task="fold", extra={"outcome": "success", "kind": "rollout"})
    writer.finish()


def prepare(folder: Path, version: str) -> None:
    """Write and import a dataset, and check that all ways give the same labels."""
    write_dataset(folder / "source", version)
    dataset = execute("import_dataset", {"dataset_uri": str(folder / "source")}, {}, str(folder / "runs"))
    (folder / "dataset").write_text(dataset.uri)
    for case in CASES:
        found = ours(folder, case, folder / "runs").table("labels")
        sliced = case == "slices"
        mine = found["slice"].to_numpy() if sliced else found["advantage_label"].to_numpy(zero_copy_only=False)
        with tempfile.TemporaryDirectory(dir=folder) as target:
            rewrite(folder, case, Path(target))
            files = sorted(Path(target).glob("*.parquet"))
            theirs = np.concatenate([pq.read_table(file)["task_index"].to_numpy() for file in files])
        assert np.array_equal(theirs, mine if sliced else mine == "positive"), case


def ours(folder: Path, case: str, root: Path) -> Manifest:
    """Run the stage."""
    config = {"preset": "kai0_legacy", "kai0": CASES[case]}
    return execute("label_advantage", config, {"dataset": (folder / "dataset").read_text()}, str(root))


def clocked(folder: Path, work: Callable[[Path], object]) -> dict[str, float]:
    """Return what ``work`` takes, which writes into the folder that it is given; that is deleted off the clock."""
    with tempfile.TemporaryDirectory(dir=folder) as target:
        return timed(lambda: work(Path(target)))


def label(folder: Path, case: str) -> dict[str, float]:
    """Run the stage, as a way of doing it."""
    return clocked(folder, lambda root: ours(folder, case, root))


def relabel(folder: Path, case: str) -> dict[str, float]:
    """Do it as the public labeller does."""
    return clocked(folder, lambda target: rewrite(folder, case, target))


def rewrite(folder: Path, case: str, target: Path) -> None:
    """Read every file with pandas for the cut, read it again, and write it to ``target`` with its labels."""
    import pandas as pd  # noqa: PLC0415  (only here)

    files = sorted((folder / "source").glob("data/chunk-*/*.parquet"))
    num_stages = 2 if case == "stages" else 1
    pools: dict[int, list[float]] = {stage: [] for stage in range(num_stages)}
    for file in files:
        frames = pd.read_parquet(file)
        advantage = frames[ADVANTAGE].values.astype(np.float32)
        if num_stages == 1:
            pools[0].extend(advantage.tolist())
            continue
        progress = frames[PROGRESS].values
        for row in range(len(advantage)):
            pools[stage_of(progress[row], num_stages)].append(advantage[row])
    percents = [10 * number for number in range(10)] if case == "slices" else [70.0]
    edges = {stage: [np.percentile(pool, percent) for percent in percents] for stage, pool in pools.items()}
    for file in files:
        frames = pd.read_parquet(file)
        advantage = frames[ADVANTAGE].values.astype(np.float32)
        label = np.zeros(len(frames), np.int32)
        if case == "slices":
            for number in range(9):
                label[(advantage >= edges[0][number]) & (advantage < edges[0][number + 1])] = number
            label[advantage >= edges[0][-1]] = 9
        elif num_stages == 1:
            label = (advantage >= edges[0][0]).astype(np.int32)
        else:
            progress = frames[PROGRESS].values
            for row in range(len(advantage)):
                label[row] = 1 if advantage[row] >= edges[stage_of(progress[row], num_stages)][0] else 0
        frames["task_index"] = label
        frames.to_parquet(target / file.name, index=False)


def stage_of(progress: float, num_stages: int) -> int:
    """Return the stage of one frame."""
    return min(int(progress / (1.0 / num_stages)), num_stages - 1)


def kai0(folder: Path, case: str) -> dict[str, float]:
    """Run the public script, which writes in place, on a copy."""
    with tempfile.TemporaryDirectory(dir=folder) as copy:
        shutil.copytree(folder / "source", copy, dirs_exist_ok=True)
        python, script = os.environ["ROBOLIFT_KAI0_PYTHON"], str(Path(os.environ["ROBOLIFT_KAI0"]) / SCRIPT)
        command = [python, "-c", DRIVER, script, copy, *CASES[case].split()]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def labelling(name: str, version: str, *, faster: float, memory: Callable[[str], Goal]) -> Benchmark:
    """Return the benchmark of one layout on disk."""
    ways = {"pandas": relabel, "kai0": kai0, "ours": label}
    return Benchmark(
        name=name,
        prepare=functools.partial(prepare, version=version),
        ways=tuple(
            Way(
                f"{case}, {way}",
                functools.partial(work, case=case),
                needs=("ROBOLIFT_KAI0", "ROBOLIFT_KAI0_PYTHON") if way == "kai0" else (),
            )
            for case in CASES
            for way, work in ways.items()
        ),
        goals=(
            *(
                Goal(f"{case}: CPU of pandas / ours", (f"{case}, pandas", f"{case}, ours"), "cpu_s", at_least=faster)
                for case in CASES
            ),
            *(Goal(f"{case}: CPU of kai0 / ours", (f"{case}, kai0", f"{case}, ours"), "cpu_s") for case in CASES),
            *(memory(case) for case in CASES),
        ),
    )


NSTEP_FRAMES = 10_000_000
LOOP_SHARE = 100


def signals(num: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return rewards, values and the starts of episodes."""
    rewards, values = np.random.default_rng(0).normal(size=(2, num)) / LENGTH
    return rewards, values, np.arange(0, num + 1, LENGTH)


def loop(rewards: np.ndarray, values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """N-step advantage as it is defined: for each frame the sum of a slice."""
    found = np.empty(len(rewards))
    for begin, end in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        for t in range(begin, end):
            ahead = t + LOOKAHEAD
            bootstrap = values[ahead] if ahead < end else 0.0
            found[t] = rewards[t : min(ahead, end)].sum() + bootstrap - values[t]
    return found


def running(rewards: np.ndarray, values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """The same with a running sum, over Python's own numbers: NumPy's cost more one by one."""
    reward, value, found = rewards.tolist(), values.tolist(), []
    for begin, end in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        window = sum(reward[begin : min(begin + LOOKAHEAD, end)])
        for t in range(begin, end):
            ahead = t + LOOKAHEAD
            found.append(window + (value[ahead] if ahead < end else 0.0) - value[t])
            window += (reward[ahead] if ahead < end else 0.0) - reward[t]
    return np.array(found)


def vectorized(rewards: np.ndarray, values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Ours."""
    return nstep_advantage(rewards, values, starts, lookahead=LOOKAHEAD)


def check_nstep(folder: Path) -> None:
    """Check that all give the same."""
    given = signals(20 * LENGTH)
    assert all(np.allclose(way(*given), loop(*given), atol=1e-12) for way in (running, vectorized))


def advance(folder: Path, way: Callable[..., np.ndarray], share: int) -> dict[str, float]:
    """Time the second call of one of them per million frames, without the making of its input."""
    given = signals(NSTEP_FRAMES // share)
    way(*given)
    return {"cpu_s_per_million": timed(lambda: way(*given))["cpu_s"] * share * 1e6 / NSTEP_FRAMES}


def prepare_export(folder: Path) -> None:
    """Label a dataset, and check that an export of it changes one column and nothing else."""
    write_dataset(folder / "source", "v2.1", EXPORTED)
    dataset = execute("import_dataset", {"dataset_uri": str(folder / "source")}, {}, str(folder / "runs"))
    (folder / "dataset").write_text(dataset.uri)
    labels = ours(folder, "binary", folder / "runs")
    (folder / "labels").write_text(labels.uri)
    made = exported(folder, folder / "exported")
    texts = [json.loads(line)["task"] for line in (made / "meta" / "tasks.jsonl").read_text().splitlines()]
    positive = labels.table("labels")["advantage_label"].to_numpy(zero_copy_only=False) == "positive"
    first = 0
    for file in sorted((folder / "source").glob("data/chunk-*/*.parquet")):
        before, after = pq.read_table(file), pq.read_table(made / file.relative_to(folder / "source"))
        assert after.schema.equals(before.schema, check_metadata=True), file
        assert after.drop(["task_index"]).equals(before.drop(["task_index"])), file
        told = [texts[index].endswith("positive") for index in after["task_index"].to_pylist()]
        assert told == positive[first : first + len(told)].tolist(), file
        first += len(told)
    shutil.rmtree(folder / "exported")


def exported(folder: Path, root: Path, labels: str = "") -> Path:
    """Run the stage and return where the dataset is."""
    inputs = {"dataset": (folder / "dataset").read_text(), "labels": labels or (folder / "labels").read_text()}
    made = execute("export_dataset", {"columns": ["kai0"]}, inputs, str(root))
    return Path(made.file("dataset").removeprefix("file://"))


def export(folder: Path) -> dict[str, float]:
    """Run the stage, as a way of doing it."""
    return clocked(folder, lambda root: exported(folder, root))


def label_and_export(folder: Path) -> dict[str, float]:
    """Run both stages."""
    return clocked(folder, lambda root: exported(folder, root, ours(folder, "binary", root).uri))


def rewrite_given(folder: Path) -> dict[str, float]:
    """Read every file with pandas, once, and write it with labels that are there."""
    import pandas as pd  # noqa: PLC0415  (only here)

    labels = load((folder / "labels").read_text()).table("labels")["advantage_label"]
    positive = (labels.to_numpy(zero_copy_only=False) == "positive").astype(np.int32)

    def work(target: Path) -> None:
        first = 0
        for file in sorted((folder / "source").glob("data/chunk-*/*.parquet")):
            frames = pd.read_parquet(file)
            frames["task_index"] = positive[first : first + len(frames)]
            frames.to_parquet(target / file.name, index=False)
            first += len(frames)

    return clocked(folder, work)


BENCHMARKS = (
    labelling(
        "labels",
        "v2.1",
        faster=9.0,
        memory=lambda case: Goal(f"{case}: peak memory of ours, MB", (f"{case}, ours",), "peak_mb", at_most=260),
    ),
    labelling(
        "labels_v30",
        "v3.0",
        faster=6.0,
        memory=lambda case: Goal(
            f"{case}: peak memory of pandas / ours", (f"{case}, pandas", f"{case}, ours"), "peak_mb", at_least=3.0
        ),
    ),
    Benchmark(
        name="nstep",
        prepare=check_nstep,
        ways=(
            Way("a slice sum a frame", functools.partial(advance, way=loop, share=LOOP_SHARE)),
            Way("a running sum", functools.partial(advance, way=running, share=LOOP_SHARE)),
            Way("ours", functools.partial(advance, way=vectorized, share=1)),
        ),
        goals=(
            Goal("CPU of the slice sums / ours", ("a slice sum a frame", "ours"), "cpu_s_per_million", at_least=100),
            Goal("CPU of the running sum / ours", ("a running sum", "ours"), "cpu_s_per_million"),
        ),
    ),
    Benchmark(
        name="export",
        prepare=prepare_export,
        ways=(
            Way("pandas", functools.partial(relabel, case="binary")),
            Way("ours", export),
            Way("label and export", label_and_export),
            Way("pandas, given labels", rewrite_given),
        ),
        goals=(
            Goal("CPU of pandas / ours", ("pandas", "ours"), "cpu_s", at_least=2.5),
            Goal("CPU of pandas / label and export", ("pandas", "label and export"), "cpu_s"),
            Goal("CPU of pandas, given labels / ours", ("pandas, given labels", "ours"), "cpu_s"),
        ),
    ),
)
