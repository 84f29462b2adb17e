"""Ten times more frames through the stages that read every frame: at most eleven times the time, the same memory.

Each stage runs on two datasets of episodes of 1,000 frames, one ten times as long as the other, as
`python -m robolift STAGE` runs it: inputs are opened and checked, outputs hashed and published. The limit is a stage
that only ever holds a block of frames: its time is proportional to the frames and its memory doesn't know them. Fair,
because the short dataset has a million frames, many blocks already, and nothing of the longer one is left out. The
import reads a packed LeRobot v3.0 dataset of six-dimensional states and actions, in files of 100 episodes; the merge
takes eight shards of predicted values.

`ROBOLIFT_BENCH_FRAMES` sets the length of the short dataset, for a quick look.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.harness import Benchmark, Goal, Way
from robolift import schema
from robolift.data.dataset import Dataset
from robolift.data.lerobot_format import DATA_PATHS, EPISODES_PATH, INFO_FILE, TASKS_PARQUET, V30
from robolift.manifest import Manifest, Output, Plan
from robolift.schema import Kind
from robolift.stages.stage import execute, find

SHORT, LONG = "short", "long"
FRAMES = int(os.environ.get("ROBOLIFT_BENCH_FRAMES", "1_000_000"))
LENGTH = 1000
EPISODES_A_FILE = 100
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
}
for name in CONFIGS:  # what a stage imports is the same for both lengths, and no part of the time
    find(name)


def prepare(folder: Path) -> None:
    """Write both recordings and what the stages take, without running a stage twice."""
    for size, episodes in ((SHORT, FRAMES // LENGTH), (LONG, 10 * FRAMES // LENGTH)):
        root = folder / size
        write_recording(root / "recording", episodes)
        config = {"dataset_uri": str(root / "recording"), **CONFIGS["import_dataset"]}
        dataset = execute("import_dataset", config, {}, str(root / "runs"))
        targets = execute("label_returns", {}, {"dataset": dataset.uri}, str(root / "runs"))
        opened = Dataset.open(dataset)
        shards = [publish_shard(root, opened, dataset, number) for number in range(SHARDS)]
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
    plan = Plan(
        stage="import_reviews" if by_people else "collect_rewards",
        kind=Kind.REWARDS,
        root=str(root / "runs"),
        config={},
        inputs={"dataset": [made]},
        code="0" * 16,
        digest=f"{int(by_people):016x}",
    )
    output = Output(plan)
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


def publish_shard(root: Path, dataset: Dataset, made: Manifest, number: int) -> Manifest:
    """Publish a shard of made-up values."""
    first, end = (LENGTH * (dataset.num_episodes * edge // SHARDS) for edge in (number, number + 1))
    plan = Plan(
        stage="predict_values",
        kind=Kind.VALUE_SHARD,
        root=str(root / "runs"),
        config={"shard": number, "num_shards": SHARDS},
        inputs={"dataset": [made], "checkpoint": [made]},
        code="0" * 16,
        digest=f"{number:016x}",
    )
    output = Output(plan)
    rng = np.random.default_rng(number)
    with output.open_table("values") as table:
        for at in range(first, end, schema.ROW_GROUP_ROWS):
            keys = dataset.keys(at, min(at + schema.ROW_GROUP_ROWS, end))
            count = len(keys[schema.FRAME_INDEX])
            value, spread = (rng.random(count, dtype=np.float32) for _ in range(2))
            unknown = pa.nulls(count, pa.float32())
            table.add({**keys, "value": -value, "value_std": spread, "relative_advantage": unknown})
    return output.publish({"frames": end - first})


def run(folder: Path, *, stage: str, size: str) -> None:
    """Run a stage as a first time; its output goes away."""
    root = folder / size
    inputs = json.loads((root / "inputs.json").read_text())[stage]
    config = dict(CONFIGS[stage])
    if stage == "import_dataset":
        config["dataset_uri"] = str(root / "recording")
    execute(stage, config, inputs, str(folder / "again"))
    shutil.rmtree(folder / "again")


BENCHMARK = Benchmark(
    name="scale",
    prepare=prepare,
    ways=tuple(
        Way(f"{stage} {size}", functools.partial(run, stage=stage, size=size))
        for stage in CONFIGS
        for size in (SHORT, LONG)
    ),
    goals=tuple(
        Goal(f"{stage}: {what}, 10 times the frames / once", (f"{stage} {LONG}", f"{stage} {SHORT}"), of, at_most=limit)
        for stage in CONFIGS
        for what, of, limit in (("CPU time", "cpu_s", 11.0), ("peak memory", "peak_mb", 1.2))
    ),
)
