"""What labelling costs, against a plain way of doing the same.

    OMP_NUM_THREADS=1 python benchmarks/labeling.py [--episodes 1000] [--frames 1000] [--repeats 5]

CPU seconds (user + system, all threads), medians of interleaved repeats, because other work on a machine slows both
sides alike. Each pair is checked for equal results before it is timed. The references are our own plain versions: a
Python loop over frames, and relabelling in place the way kai0's script works (read every file for the cut, read it
again, write it with the label), without pandas.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from robolift import logging
from robolift.data.lerobot_format import FeatureSpec
from robolift.data.lerobot_writer import LeRobotWriter
from robolift.labeling.advantage import gae_advantage, nstep_advantage
from robolift.manifest import Manifest, Output, Plan
from robolift.schema import Kind
from robolift.stages.stage import execute

LOOKAHEAD = 50
ADVANTAGE = "absolute_advantage"
LABELS = {"source": "column", "column": ADVANTAGE, "population": "all", "demo": "score", "group_by": "all"}
FEATURES = {
    "observation.state": FeatureSpec("float32", (14,)),
    "action": FeatureSpec("float32", (14,)),
    ADVANTAGE: FeatureSpec("float32"),
    "stage_progress_gt": FeatureSpec("float32"),
    "control_mode": FeatureSpec("string"),
    "intervention": FeatureSpec("int64"),
}


def measure(pairs: dict[str, tuple[Callable[[], object], ...]], repeats: int) -> dict[str, list[float]]:
    """Return the median CPU seconds of every alternative of every pair, taken in turn."""
    taken: dict[str, list[list[float]]] = {name: [[] for _ in calls] for name, calls in pairs.items()}
    for _ in range(repeats):
        for name, calls in pairs.items():
            for number, call in enumerate(calls):
                begin = time.process_time()
                call()
                taken[name][number].append(time.process_time() - begin)
    return {name: [statistics.median(times) for times in found] for name, found in taken.items()}


def loop_nstep(rewards: np.ndarray, values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """N-step advantage as it is defined: for each frame the sum of a slice."""
    found = np.empty(len(rewards))
    for begin, end in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        for t in range(begin, end):
            ahead = t + LOOKAHEAD
            bootstrap = values[ahead] if ahead < end else 0.0
            found[t] = rewards[t : min(ahead, end)].sum() + bootstrap - values[t]
    return found


def running_nstep(rewards: np.ndarray, values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """The same with a running sum, the best a loop can do."""
    found = np.empty(len(rewards))
    for begin, end in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        window = float(rewards[begin : min(begin + LOOKAHEAD, end)].sum())
        for t in range(begin, end):
            ahead = t + LOOKAHEAD
            found[t] = window + (values[ahead] if ahead < end else 0.0) - values[t]
            window += (rewards[ahead] if ahead < end else 0.0) - rewards[t]
    return found


def loop_gae(rewards: np.ndarray, values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """GAE(0.95) by the backward recursion."""
    found = np.empty(len(rewards))
    for begin, end in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        carried = following = 0.0
        for t in range(end - 1, begin - 1, -1):
            carried = rewards[t] + following - values[t] + 0.95 * carried
            found[t], following = carried, values[t]
    return found


def write_dataset(folder: Path, episodes: int, frames: int) -> None:
    """Write a LeRobot v2.1 dataset of successes with a random advantage column, one file an episode."""
    rng = np.random.default_rng(0)
    writer = LeRobotWriter(folder, fps=30, features=FEATURES, cameras={}, robot_type="arm", version="v2.1")
    for _ in range(episodes):
        columns = {
            "observation.state": rng.normal(size=(frames, 14)).astype(np.float32),
            "action": rng.normal(size=(frames, 14)).astype(np.float32),
            ADVANTAGE: rng.normal(size=frames).astype(np.float32),
            "stage_progress_gt": np.linspace(0, 1, frames, dtype=np.float32),
            "control_mode": ["autonomous"] * frames,
            "intervention": np.zeros(frames, np.int64),
        }
        writer.add_episode(columns, videos={}, task="fold", extra={"outcome": "success", "kind": "rollout"})
    writer.finish()


def relabel_in_place(source: Path, target: Path) -> np.ndarray:
    """Label every frame by one cut and rewrite every file; writes to ``target`` so that it can be repeated."""
    files = sorted(source.glob("data/chunk-*/*.parquet"))
    cut = np.quantile(np.concatenate([pq.read_table(file)[ADVANTAGE].to_numpy() for file in files]), 0.7)
    found = []
    for file in files:
        table = pq.read_table(file)
        positive = table[ADVANTAGE].to_numpy() >= cut
        position = table.column_names.index("task_index")
        table = table.set_column(position, "task_index", pa.array(positive.astype(np.int64)))
        pq.write_table(table, target / file.name)
        found.append(positive)
    return np.concatenate(found)


def publish_values(root: str, dataset: Manifest, *, low: float = -1.0) -> Manifest:
    """Publish random values from ``low`` to ``low + 1`` for the frames of a dataset."""
    frames = dataset.table("frames")
    num = frames.num_rows
    plan = Plan(stage="merge_values", kind=Kind.VALUES, root=root, config={}, inputs={}, code="", digest="0" * 16)
    output = Output(plan)
    columns = {key: frames[key].combine_chunks() for key in ("episode_index", "frame_index")}
    value = np.float32(low) + np.random.default_rng(1).random(num, dtype=np.float32)
    spread = {"value": value, "value_std": np.zeros(num, np.float32), "relative_advantage": pa.nulls(num, pa.float32())}
    output.write_table("values", {**columns, **spread})
    return output.publish({"frames": num})


def main() -> None:
    """Make the data, check that the alternatives agree, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=1000)
    parser.add_argument("--frames", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    logging.configure(level="warning")
    pa.set_cpu_count(1)
    num = args.episodes * args.frames
    starts = np.arange(0, num + 1, args.frames)
    rng = np.random.default_rng(0)
    rewards, values = rng.normal(size=(2, num)) / args.frames
    with tempfile.TemporaryDirectory(prefix="robolift-bench-") as folder:
        source, target = Path(folder, "source"), Path(folder, "target")
        target.mkdir()
        write_dataset(source, args.episodes, args.frames)
        root = str(Path(folder, "runs"))
        dataset = execute("import_dataset", {"dataset_uri": str(source)}, {}, root)
        predicted = publish_values(root, dataset)
        made = iter(range(10**6))

        def relabel() -> Manifest:
            return execute("label_advantage", LABELS, {"dataset": dataset.uri}, f"{root}-{next(made)}")

        def recap() -> Manifest:
            fresh = f"{root}-{next(made)}"
            targets = execute("label_returns", {}, {"dataset": dataset.uri}, fresh)
            given = {"dataset": dataset.uri, "targets": targets.uri, "values": predicted.uri}
            return execute("label_advantage", {}, given, fresh)

        def nstep() -> np.ndarray:
            return nstep_advantage(rewards, values, starts, lookahead=LOOKAHEAD)

        def gae() -> np.ndarray:
            return gae_advantage(rewards, values, starts, gae_lambda=0.95)

        pairs: dict[str, tuple[Callable[[], object], ...]] = {
            "N-step advantage, a slice sum a frame / ours": (lambda: loop_nstep(rewards, values, starts), nstep),
            "N-step advantage, a running sum / ours": (lambda: running_nstep(rewards, values, starts), nstep),
            "GAE, backward recursion / ours": (lambda: loop_gae(rewards, values, starts), gae),
            "relabel by a column, rewrite files / ours": (lambda: relabel_in_place(source, target), relabel),
            "returns + N-step labels, sidecars": (recap,),
        }
        for name in list(pairs)[:3]:
            loop, ours = (np.asarray(call()) for call in pairs[name])
            assert np.allclose(loop, ours, atol=1e-9), name
        labels = relabel().table("labels")["advantage_label"].to_numpy(zero_copy_only=False)
        assert np.array_equal(relabel_in_place(source, target), labels == "positive")
        times = measure(pairs, args.repeats)
    print(f"{num:,} frames in {args.episodes:,} episodes, medians of {args.repeats}, CPU seconds\n")
    print(f"{'':44} {'reference':>9} {'ours':>8} {'ratio':>7} {'Mframes/s':>10}")
    for name, found in times.items():
        ours, reference = found[-1], found[0] if len(found) > 1 else None
        left = f"{reference:9.3f}" if reference is not None else f"{'':>9}"
        ratio = f"{reference / ours:6.1f}x" if reference is not None else f"{'':>7}"
        print(f"{name:44} {left} {ours:8.3f} {ratio} {num / ours / 1e6:10.2f}")


if __name__ == "__main__":
    main()
