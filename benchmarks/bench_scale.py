"""Ten times more frames through the stages that read every frame: at most eleven times the time, the same memory.

Each stage runs on two datasets of episodes of 1,000 frames, one ten times as long as the other, as
`python -m robolift STAGE` runs it: inputs are opened and checked, outputs hashed and published. The limit is a stage
that only ever holds a block of frames: its time is proportional to the frames and its memory doesn't know them. Fair,
because the short dataset has several blocks already, and nothing of the longer one is left out. The import reads a
packed LeRobot v3.0 dataset of six-dimensional states and actions, in files of 100 episodes; the merge takes eight
shards of predicted values. Wall time stands beside as information. write_report is not here: it holds columns of all
frames; of stages that look at pictures, bench_prediction.py measures the memory.

**scale_large**, where `ROBOLIFT_BENCH_LARGE` is set, labels 1,000 million frames, in less than 2 GB: a quarter of an
hour, and 30 GB of disk. Its dataset has tables and no recording. `ROBOLIFT_BENCH_FRAMES` sets the length of the short
dataset, for a quick look.
"""

from __future__ import annotations

import functools
import json
import math
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset  # brings pandas, whose start is then no part of anyone's work
import pyarrow.parquet as pq

from benchmarks.harness import Benchmark, Goal, Way
from benchmarks.taken import timed
from robolift import schema
from robolift.data.dataset import Dataset
from robolift.data.lerobot_format import DATA_PATHS, EPISODES_PATH, INFO_FILE, TASKS_PARQUET, V30
from robolift.manifest import Manifest, Output, Plan
from robolift.schema import Kind
from robolift.stages.stage import execute, find

SHORT, LONG, LARGE = "short", "long", "large"
LARGE_FRAMES, HOUR_S = 1_000_000_000, 3600.0
FRAMES = int(os.environ.get("ROBOLIFT_BENCH_FRAMES", "1_000_000"))
LENGTH = 1000
EPISODES_A_FILE = 100
LARGE_STAGES = ("label_returns", "label_advantage")
SHARDS = 8
DIM = 6
FPS = 10
CONFIGS: dict[str, dict[str, Any]] = {
    "import_dataset": {"control_mode": "autonomous", "check_videos": "none"},
    "label_returns": {},
    "merge_values": {},
    "label_advantage": {},
    "merge_rewards": {},
    "compute_norm_stats": {"paused": "include"},
    "export_dataset": {"columns": ["kai0"]},
}
for name in CONFIGS:  # what a stage imports is the same for both lengths, and no part of the time
    find(name)


def prepare(folder: Path) -> None:
    """Write both recordings and what the stages take, without running a stage twice."""
    make(folder, {SHORT: FRAMES, LONG: 10 * FRAMES})
    for size in (SHORT, LONG):
        inputs = json.loads((folder / size / "inputs.json").read_text())
        labels = execute("label_advantage", {}, inputs["label_advantage"], str(folder / size / "runs"))
        inputs["export_dataset"] = {**inputs["label_returns"], "labels": labels.uri}
        (folder / size / "inputs.json").write_text(json.dumps(inputs))


def prepare_large(folder: Path) -> None:
    """Write what the large dataset is labelled from."""
    root, runs = folder / LARGE, str(folder / LARGE / "runs")
    dataset = publish_dataset(root, LARGE_FRAMES // LENGTH)
    inputs = {"dataset": dataset.uri}
    values = publish_values(root, Dataset.open(dataset), dataset)
    targets = execute("label_returns", {}, inputs, runs)
    given = {"label_returns": inputs, "label_advantage": {**inputs, "targets": targets.uri, "values": values.uri}}
    (root / "inputs.json").write_text(json.dumps(given))


def make(folder: Path, sizes: Mapping[str, int]) -> None:
    """Write a recording for each number of frames, and what the stages take up to the labels."""
    for size, frames in sizes.items():
        root, episodes = folder / size, frames // LENGTH
        write_recording(root / "recording", episodes)
        config = {"dataset_uri": str(root / "recording"), **CONFIGS["import_dataset"]}
        dataset = execute("import_dataset", config, {}, str(root / "runs"))
        targets = execute("label_returns", {}, {"dataset": dataset.uri}, str(root / "runs"))
        opened = Dataset.open(dataset)
        shards = [publish_values(root, opened, dataset, number) for number in range(SHARDS)]
        inputs = {"dataset": dataset.uri, "shards": [shard.uri for shard in shards]}
        values = execute("merge_values", {}, inputs, str(root / "runs"))
        given = {
            "import_dataset": {},
            "label_returns": {"dataset": dataset.uri},
            "merge_values": inputs,
            "label_advantage": {"dataset": dataset.uri, "targets": targets.uri, "values": values.uri},
            "merge_rewards": {
                "dataset": dataset.uri,
                **{name: publish_rewards(root, opened, dataset, name).uri for name in ("automatic", "reviews")},
            },
            "compute_norm_stats": {"dataset": dataset.uri},
        }
        (root / "inputs.json").write_text(json.dumps(given))


def write_recording(path: Path, num_episodes: int) -> None:
    """Write a LeRobot v3.0 dataset without cameras; every third episode fails."""
    numbers = np.random.default_rng(0).integers(0, 256, (LENGTH * EPISODES_A_FILE, 2 * DIM)).astype(np.float32) / 256
    kind = pa.list_(pa.float32(), DIM)
    state, action = (
        pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(half).reshape(-1)), type=kind)
        for half in (numbers[:, :DIM], numbers[:, DIM:])
    )
    frame = np.tile(np.arange(LENGTH), EPISODES_A_FILE)
    rows = []
    for number, first in enumerate(range(0, num_episodes, EPISODES_A_FILE)):
        some = np.arange(first, min(first + EPISODES_A_FILE, num_episodes))
        count = len(some) * LENGTH
        table = pa.table(
            {
                "observation.state": state[:count],
                "action": action[:count],
                "timestamp": (frame[:count] / FPS).astype(np.float32),
                "frame_index": frame[:count],
                "episode_index": np.repeat(some, LENGTH),
                "index": first * LENGTH + np.arange(count),
                "task_index": np.zeros(count, np.int64),
            }
        )
        target = path / DATA_PATHS[V30].format(chunk_index=0, file_index=number)
        target.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, target, row_group_size=LENGTH)
        rows += [_episode(int(episode), number) for episode in some]
    _write_meta(path, rows)


def _episode(episode: int, file: int) -> dict[str, Any]:
    return {
        "episode_index": episode,
        "length": LENGTH,
        "tasks": ["fold the towel"],
        "outcome": "failure" if episode % 3 == 0 else "success",
        "data/chunk_index": 0,
        "data/file_index": file,
    }


def _write_meta(path: Path, rows: list[dict[str, Any]]) -> None:
    scalars = {
        "timestamp": "float32",
        **dict.fromkeys(("frame_index", "episode_index", "index", "task_index"), "int64"),
    }
    features = {name: {"dtype": dtype, "shape": [1]} for name, dtype in scalars.items()}
    features |= {name: {"dtype": "float32", "shape": [DIM]} for name in ("observation.state", "action")}
    info = {
        "codebase_version": V30,
        "fps": FPS,
        "features": features,
        "total_episodes": len(rows),
        "total_frames": len(rows) * LENGTH,
        "total_tasks": 1,
    }
    episodes = path / EPISODES_PATH.format(chunk_index=0, file_index=0)
    episodes.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), episodes)
    pq.write_table(pa.table({"task_index": [0], "task": ["fold the towel"]}), path / TASKS_PARQUET)
    (path / INFO_FILE).write_text(json.dumps(info))


def publish_rewards(root: Path, dataset: Dataset, made: Manifest, name: str) -> Manifest:
    """Publish made-up rewards: progress by a model in every frame, by people in every tenth."""
    by_people = name == "reviews"
    stage = "import_reviews" if by_people else "collect_rewards"
    output = _output(root, stage, Kind.REWARDS, {"dataset": [made]}, digest=int(by_people))
    with output.open_table("rewards") as table:
        for at in range(0, dataset.num_frames, schema.ROW_GROUP_ROWS):
            keys = dataset.keys(at, min(at + schema.ROW_GROUP_ROWS, dataset.num_frames))
            frame = keys[schema.FRAME_INDEX]
            silent = (frame % 10 > 0) & by_people
            unknown = set(schema.REWARDS.names) - {*keys, "progress", "anchor", "source"}
            columns = {column: pa.nulls(len(frame), schema.REWARDS.field(column).type) for column in unknown}
            progress = pa.array((frame / LENGTH).astype(np.float32), mask=silent)
            source = np.where(silent, "none", "human" if by_people else "vlm")
            table.add({**keys, **columns, "progress": progress, "anchor": ~silent, "source": source})
    return output.publish({"frames": dataset.num_frames})


def publish_dataset(root: Path, num_episodes: int) -> Manifest:
    """Publish the tables of an imported dataset whose recording nobody reads; every third episode fails."""
    source = {"uri": "none", "version": V30, "first_episode": 0, "num_episodes": num_episodes, "digest": ""}
    facts = {"sources": [source], "fps": FPS, "robot_type": "arm", "cameras": [], "features": {}, "simulator": None}
    numbers = np.arange(num_episodes)
    episodes = {
        "episode_index": numbers,
        "length": np.full(num_episodes, LENGTH),
        "task": pa.repeat("fold the towel", num_episodes),
        "outcome": np.where(numbers % 3, "success", "failure"),
        "kind": pa.repeat("rollout", num_episodes),
        "iteration": np.ones(num_episodes, int),
    }
    output = _output(root, "import_dataset", Kind.DATASET)
    output.write_table("episodes", episodes)
    output.write_json("dataset.json", {**facts, "tasks": ["fold the towel"]})
    frame = np.tile(np.arange(LENGTH), EPISODES_A_FILE)
    with output.open_table("frames") as table:
        for some in np.split(numbers, range(EPISODES_A_FILE, num_episodes, EPISODES_A_FILE)):
            count = len(some) * LENGTH
            table.add(
                {
                    "episode_index": np.repeat(some, LENGTH),
                    "frame_index": frame[:count],
                    "timestamp": (frame[:count] / FPS).astype(np.float32),
                    "control_mode": pa.repeat("autonomous", count),
                }
            )
    return output.publish({"episodes": num_episodes, "frames": num_episodes * LENGTH})


def publish_values(root: Path, dataset: Dataset, made: Manifest, shard: int | None = None) -> Manifest:
    """Publish made-up values: of a shard, or merged ones of all frames."""
    inputs: dict[str, list[Manifest]] = {"dataset": [made]}
    if shard is None:
        output, first, end = _output(root, "merge_values", Kind.VALUES, inputs), 0, dataset.num_frames
    else:
        config, inputs = {"shard": shard, "num_shards": SHARDS}, {**inputs, "checkpoint": [made]}
        output = _output(root, "predict_values", Kind.VALUE_SHARD, inputs, config, digest=shard)
        first, end = (LENGTH * (dataset.num_episodes * edge // SHARDS) for edge in (shard, shard + 1))
    rng = np.random.default_rng(shard or 0)
    with output.open_table("values") as table:
        for at in range(first, end, schema.ROW_GROUP_ROWS):
            keys = dataset.keys(at, min(at + schema.ROW_GROUP_ROWS, end))
            count = len(keys[schema.FRAME_INDEX])
            value, spread = (rng.random(count, dtype=np.float32) for _ in range(2))
            unknown = pa.nulls(count, pa.float32())
            table.add({**keys, "value": -value, "value_std": spread, "relative_advantage": unknown})
    return output.publish({"frames": end - first})


def _output(
    root: Path,
    stage: str,
    kind: Kind,
    inputs: dict[str, list[Manifest]] | None = None,
    config: dict[str, Any] | None = None,
    *,
    digest: int = 0,
) -> Output:
    """Return an output as if a stage made it."""
    return Output(
        Plan(
            stage=stage,
            kind=kind,
            root=str(root / "runs"),
            config=config or {},
            inputs=inputs or {},
            code="0" * 16,
            digest=f"{digest:016x}",
        )
    )


def run(folder: Path, *, stage: str, size: str) -> dict[str, float]:
    """Run a stage as a first time; its output goes away off the clock."""
    root = folder / size
    inputs = json.loads((root / "inputs.json").read_text())[stage]
    config = dict(CONFIGS[stage])
    if stage == "import_dataset":
        config["dataset_uri"] = str(root / "recording")
    took = timed(lambda: execute(stage, config, inputs, str(folder / "again")))
    shutil.rmtree(folder / "again")
    return took


MEASURES = (("CPU time", "cpu_s", 11.0), ("wall time", "wall_s", math.inf), ("peak memory", "peak_mb", 1.2))
BENCHMARKS = (
    Benchmark(
        name="scale",
        prepare=prepare,
        ways=tuple(
            Way(f"{stage} {size}", functools.partial(run, stage=stage, size=size))
            for stage in CONFIGS
            for size in (SHORT, LONG)
        ),
        goals=tuple(
            Goal(
                f"{stage}: {what}, 10 times the frames / once",
                (f"{stage} {LONG}", f"{stage} {SHORT}"),
                of,
                at_most=most,
            )
            for stage in CONFIGS
            for what, of, most in MEASURES
        ),
    ),
    Benchmark(
        name="scale_large",
        prepare=prepare_large,
        ways=tuple(
            Way(stage, functools.partial(run, stage=stage, size=LARGE), needs=("ROBOLIFT_BENCH_LARGE",))
            for stage in LARGE_STAGES
        ),
        goals=tuple(
            Goal(f"{stage}: peak memory of 1,000 million frames, MB", (stage,), "peak_mb", at_most=2000)
            for stage in LARGE_STAGES
        ),
        rounds=1,
        timeout_s=4 * HOUR_S,
    ),
)
