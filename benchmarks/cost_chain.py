"""One dataset through the stages of a run, each as a process of its own, and what each was given to do."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.cost_data import FPS
from benchmarks.cost_runs import Run, run
from robolift import manifest, storage
from robolift.manifest import Manifest, Output, Plan
from robolift.planner.costs import Counts
from robolift.planner.recordings import Recordings, read
from robolift.planner.steps import PACK
from robolift.planner.workload import counted
from robolift.schema import Kind

LOOKAHEAD = 50
SIDE, SMALL_SIDE = 224, 96
"""Pixels of packed pictures, for models with towers and for the small ones."""
SHARD_MB = 16
"""Of packed pictures, so that a small recording gives work to each process."""
SEEN_BYTES = SMALL_SIDE**2 * 3
BATCH = 16
TRAINED = {
    "preset": "tiny",
    "val_fraction": 0,
    "warmup_steps": 0,
    "batch_size": BATCH,
    "steps": 1,
    "image_size": [SMALL_SIDE, SMALL_SIDE],
}


@dataclass(frozen=True)
class Taken:
    """One run of a stage: what there was to do, what it took, and the bytes of its output where that is on a disk.

    ``decoding`` and ``reading`` packed pictures by themselves are stages here, too.
    """

    stage: str
    counts: Counts
    run: Run
    written_bytes: float = 0.0


@dataclass(frozen=True)
class Job:
    """A stage that can be run at any time: what it is told, what it is given, and what there is to do."""

    stage: str
    config: Mapping[str, Any]
    inputs: Mapping[str, Any]
    counts: Counts


@dataclass
class Chain:
    """The stages of one dataset, run when they are asked for.

    Attributes:
        recordings: How much it holds.
        folder: For files of the runs.
        root: Where outputs go.
        source: Address of the LeRobot dataset, empty where only tables are.
        runner: Runs a stage; another one counts requests.
        later: Whether what nothing follows is not run.
        taken: Every run so far.
        jobs: What was asked for so far.
    """

    recordings: Recordings
    folder: Path
    root: str
    source: str = ""
    runner: Callable[..., Run] = run
    later: bool = False
    taken: list[Taken] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)

    @classmethod
    def of(cls, source: str, folder: Path, root: str, **more: Any) -> Chain:
        """Return the chain of a LeRobot dataset."""
        return cls(read(source), folder, root, source, **more)

    def do(
        self, stage: str, config: Mapping[str, Any], inputs: Mapping[str, Any], *, last: bool = False, **counts: float
    ) -> str:
        """Run a stage and return the address of its output; none if it is the ``last`` and left for later.

        Raises:
            RuntimeError: If it had nothing to do.
        """
        self.jobs.append(Job(stage, dict(config), dict(inputs), counted(self.recordings, **counts)))
        if last and self.later:
            return ""
        found = self.runner(stage, self.folder, root=self.root, inputs=inputs, config=config)
        if any(found.uri == one.run.uri for one in self.taken):
            raise RuntimeError(f"{stage} found {found.uri} of an earlier run: nothing was measured")
        size = 0.0 if storage.local_path(found.uri) is None else written(found.uri)
        self.taken.append(Taken(stage, self.jobs[-1].counts, found, size))
        return found.uri

    def dataset(self) -> str:
        """Import."""
        return self.do("import_dataset", {"dataset_uri": self.source}, {})

    def targets(self, dataset: str) -> str:
        """Label returns."""
        return self.do("label_returns", {}, {"dataset": dataset})

    def values(self, dataset: str, *, shards: int) -> str:
        """Merge random values, cut into shards."""
        cut = publish_values(self.root, manifest.load(dataset), shards)
        return self.do("merge_values", {}, {"dataset": dataset, "shards": cut}, shard=shards)

    def labels(self, dataset: str, *, shards: int, report: bool = True) -> dict[str, str]:
        """Run the stages that read tables alone, on random values, and return all that was made."""
        made = {"dataset": dataset, "targets": self.targets(dataset), "values": self.values(dataset, shards=shards)}
        made["labels"] = self.do("label_advantage", {}, made)
        if report:
            self.do("write_report", {}, made, last=True)
        return made

    def rows(self, dataset: str, made: Mapping[str, str]) -> None:
        """Run every stage that reads the rows of the source."""
        self.do("export_dataset", {}, made, last=True)
        self.do("compute_norm_stats", {}, {"dataset": dataset}, last=True)

    def policy(self, made: Mapping[str, str], *, steps: int) -> None:
        """Train the small policy without cameras."""
        told = {"preset": "tiny", "vision": "none", "val_fraction": 0, "batch_size": 64, "steps": steps}
        inputs = {name: made[name] for name in ("dataset", "labels")}
        self.do("train_policy", told, inputs, last=True, step=steps, row=steps * 64)

    def copy(self, dataset: str, targets: str) -> None:
        """Export with one column more."""
        given = {"dataset": dataset, "targets": targets}
        self.do("export_dataset", {"columns": ["next_reward"]}, given, last=True)

    def pictures(self, dataset: str, targets: str, *, steps: Sequence[int]) -> None:
        """Run every stage that packs or reads pictures, training for each number of ``steps``."""
        shown = {"dataset": dataset, "targets": targets}
        self.copy(dataset, targets)
        # A store is asked for as many files as a pod would write.
        shard_mb = None if "://" in self.root else SHARD_MB
        told = {"size": [SIDE, SIDE], "num_workers": PACK.cores, "shard_mb": shard_mb}
        self.do("pack_frames", told, {"dataset": dataset}, last=True)
        seen, looked = self._seen(dataset), SEEN_BYTES * len(self.recordings.cameras)
        for number in steps:
            told = TRAINED | {"steps": number}
            counts = {"step": number, "row": number * BATCH, "packed_byte": number * BATCH * looked}
            checkpoint = self.do("train_value", told, {**shown, "frames": seen}, **counts)
        self._predict(dataset, checkpoint, seen)

    def prediction(self, dataset: str, targets: str) -> None:
        """Predict alone, with a model that was trained for a step."""
        seen = self._seen(dataset)
        shown = {"dataset": dataset, "targets": targets, "frames": seen}
        made = self.runner("train_value", self.folder, root=self.root, inputs=shown, config=TRAINED)
        self._predict(dataset, made.uri, seen)

    def _seen(self, dataset: str) -> str:
        """Pack what the small models look at; what that takes is none of the costs."""
        told = {"size": [SMALL_SIDE, SMALL_SIDE], "num_workers": 1}
        inputs = {"dataset": dataset}
        return self.runner("pack_frames", self.folder, root=self.root, inputs=inputs, config=told).uri

    def _predict(self, dataset: str, checkpoint: str, seen: str) -> None:
        given = {"dataset": dataset, "checkpoint": checkpoint, "frames": seen}
        looked = self.recordings.pictures * SEEN_BYTES
        self.do("predict_values", {}, given, last=True, packed_byte=looked)


def publish_tables(root: str, episodes: int, length: int) -> str:
    """Publish the tables of a dataset whose source nobody reads, and return their address.

    Episodes are as many frames shorter and longer than ``length`` in turn, up to a fifth: equal ones would have equal
    targets, which compress.
    """
    facts = {
        "sources": [{"uri": "none", "version": "v3.0", "first_episode": 0, "num_episodes": episodes, "digest": ""}],
        "fps": FPS,
        "robot_type": "arm",
        "cameras": [],
        "tasks": ["fold"],
        "features": {},
        "simulator": None,
    }
    numbers, frames = np.arange(episodes), episodes * length
    paired = numbers < episodes // 2 * 2
    lengths = length + paired * np.where(numbers % 2, 1, -1) * (1 + numbers // 2 % 20) * (length // 100)
    within = np.arange(frames) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    tables = {
        "episodes": {
            "episode_index": numbers,
            "length": lengths,
            "task": ["fold"] * episodes,
            "outcome": np.where(numbers % 2, "success", "failure"),
            "kind": ["rollout"] * episodes,
            "iteration": np.ones(episodes, int),
        },
        "frames": pa.table(
            {
                "episode_index": np.repeat(numbers, lengths),
                "frame_index": within,
                "timestamp": within.astype(np.float32) / np.float32(FPS),
                "control_mode": pa.repeat("autonomous", frames),
            }
        ),
    }
    counts = {"episodes": episodes, "frames": frames}
    return _publish(root, "import_dataset", Kind.DATASET, tables, counts=counts, files={"dataset.json": facts}).uri


def publish_values(root: str, dataset: Manifest, shards: int) -> list[str]:
    """Publish random values in the place of predicted ones and return the addresses of the shards."""
    checkpoint = _publish(root, "train_value", Kind.VALUE_CHECKPOINT, {}, counts={})
    episodes = dataset.table("episodes").column("length").to_numpy()
    starts = np.concatenate([[0], np.cumsum(episodes)])[np.linspace(0, len(episodes), shards + 1).astype(int)]
    keys = dataset.table("frames").select(["episode_index", "frame_index"])
    return [
        _publish(
            root,
            "predict_values",
            Kind.VALUE_SHARD,
            {"values": _random_values(keys.slice(first, end - first), seed=shard)},
            counts={"frames": end - first},
            config={"shard": shard, "num_shards": shards, "lookahead": LOOKAHEAD},
            inputs={"dataset": [dataset], "checkpoint": [checkpoint]},
        ).uri
        for shard, (first, end) in enumerate(itertools.pairwise(starts.tolist()))
    ]


def _random_values(keys: pa.Table, *, seed: int) -> pa.Table:
    value = np.random.default_rng(seed).uniform(-1, 0, keys.num_rows).astype(np.float32)
    columns = {"value": value, "value_std": np.full(len(value), 0.1, np.float32)}
    for name, column in columns.items():
        keys = keys.append_column(name, pa.array(column))
    return keys.append_column("relative_advantage", pa.nulls(len(value), pa.float32()))


def _publish(
    root: str,
    stage: str,
    kind: Kind,
    tables: Mapping[str, Any],
    *,
    counts: Mapping[str, int],
    files: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
    inputs: Mapping[str, list[Manifest]] | None = None,
) -> Manifest:
    """Publish tables and documents as if a stage had made them; once for a configuration, inputs and counts."""
    told, given = dict(config or {}), dict(inputs or {})
    identity = {"stage": stage, "config": told, "counts": dict(counts), "inputs": [m[0].digest for m in given.values()]}
    digest = storage.digest_of(identity)
    plan = Plan(stage=stage, kind=kind, root=root, config=told, inputs=given, code="", digest=digest)
    if done := plan.finished():
        return done
    output = Output(plan)
    for name, table in tables.items():
        output.write_table(name, table)
    for name, document in (files or {}).items():
        output.write_json(name, document)
    return output.publish(counts)


def written(uri: str) -> float:
    """Return the bytes of an output: its files, their list and the manifest."""
    return float(sum(size for _, size in storage.list_files(uri)))
