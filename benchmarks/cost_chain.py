"""One dataset through the stages of a run, each as a process of its own, and what each was given to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cost_runs import Run, run
from robolift import manifest, storage
from robolift.data.dataset import Dataset
from robolift.manifest import Manifest, Output
from robolift.planner.costs import Counts
from robolift.planner.recordings import read
from robolift.planner.workload import counted
from robolift.stages import NAMES
from robolift.stages import stage as stages

TRAINING = {"preset": "tiny", "val_fraction": 0, "warmup_steps": 0}
"""Held-out frames are measured now and then, which is no part of a step."""


@dataclass(frozen=True)
class Taken:
    """One run of a stage: what there was to do, and what it took."""

    stage: str
    counts: Counts
    run: Run


@dataclass
class Chain:
    """The stages of one dataset, run when they are asked for.

    Attributes:
        source: Address of the LeRobot dataset.
        folder: For files of the runs.
        root: Where outputs go.
        runner: Runs a stage; another one counts requests.
        taken: Every run so far.
    """

    source: str
    folder: Path
    root: str
    runner: Callable[..., Run] = run
    taken: list[Taken] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._recordings = read(self.source)
        self._made: dict[str, str] = {}

    def do(
        self, stage: str, config: Mapping[str, Any], inputs: Mapping[str, Any], *, repeat: int = 0, **counts: float
    ) -> str:
        """Run a stage and return the address of its output; repetitions go into roots of their own."""
        root = f"{self.root}-{repeat}" if repeat else self.root
        found = self.runner(stage, self.folder, root=root, inputs=inputs, config=config)
        self.taken.append(Taken(stage, counted(self._recordings, **counts), found))
        return found.uri

    def dataset(self, repeat: int = 0) -> str:
        """Import."""
        return self.do("import_dataset", {"dataset_uri": self.source}, {}, repeat=repeat)

    def trained(self, dataset: str, targets: str, *, batch: int, steps: int, repeat: int = 0, **config: Any) -> str:
        """Train the small value model."""
        told = {**TRAINING, "batch_size": batch, "steps": steps, **config}
        inputs = {"dataset": dataset, "targets": targets}
        return self.do("train_value", told, inputs, repeat=repeat, step=steps, row=steps * batch)

    def rows(self, *, shards: int, repeats: int) -> None:
        """Run every stage that reads no picture."""
        for repeat in range(repeats):
            dataset = self.dataset(repeat)
            targets = self.do("label_returns", {}, {"dataset": dataset}, repeat=repeat)
            if not repeat:
                checkpoint = self.trained(dataset, targets, batch=16, steps=2, cameras=[])
                self.taken.pop()  # that of a model without cameras says nothing of others
                cut = publish_values(self.root, dataset, checkpoint, shards)
            shown = {"dataset": dataset}
            values = self.do("merge_values", {}, {**shown, "shards": cut}, repeat=repeat, shard=shards)
            labels = self.do("label_advantage", {}, {**shown, "targets": targets, "values": values}, repeat=repeat)
            told = {**shown, "targets": targets, "values": values, "labels": labels}
            self.do("export_dataset", {}, told, repeat=repeat)
            self.do("compute_norm_stats", {}, shown, repeat=repeat)
            self.do("write_report", {}, told, repeat=repeat)
            self._labels = {**shown, "labels": labels}

    def policy(self, *, steps: int, repeat: int = 0) -> None:
        """Train the small policy without cameras on the labels of :meth:`rows`."""
        told = {"preset": "tiny", "vision": "none", "val_fraction": 0, "batch_size": 64, "steps": steps}
        self.do("train_policy", told, self._labels, repeat=repeat, step=steps, row=steps * 64)

    def pictures(self, *, steps: tuple[int, ...], repeats: int) -> None:
        """Run every stage that reads pictures, training for each number of ``steps``."""
        for repeat in range(repeats):
            dataset = self.dataset(repeat)
            targets = self.do("label_returns", {}, {"dataset": dataset}, repeat=repeat)
            for number in steps:
                checkpoint = self.trained(dataset, targets, batch=16, steps=number, repeat=repeat)
            self.do("predict_values", {}, {"dataset": dataset, "checkpoint": checkpoint}, repeat=repeat)
            self.do(
                "export_dataset", {"columns": ["next_reward"]}, {"dataset": dataset, "targets": targets}, repeat=repeat
            )
            if "pack_frames" in NAMES:
                self.do("pack_frames", {}, {"dataset": dataset}, repeat=repeat)


def publish_values(root: str, dataset: str, checkpoint: str, shards: int) -> list[str]:
    """Publish random values in the place of predicted ones and return the addresses of the shards."""
    return [_publish_shard(root, manifest.load(dataset), checkpoint, shard, shards).uri for shard in range(shards)]


def _publish_shard(root: str, dataset: Manifest, checkpoint: str, shard: int, shards: int) -> Manifest:
    from robolift.value_model.predict import shard_episodes  # noqa: PLC0415  (torch takes seconds to import)

    config = stages.parse_config("predict_values", {"shard": shard, "num_shards": shards})
    inputs = stages.load_inputs("predict_values", {"dataset": dataset.uri, "checkpoint": checkpoint})
    output = Output(stages.plan("predict_values", config, inputs, root))
    opened = Dataset.open(dataset)
    chosen = shard_episodes(opened.starts, shard, shards)
    first, end = int(opened.starts[chosen.start]), int(opened.starts[chosen.stop])
    rng = np.random.default_rng(shard)
    output.write_table(
        "values",
        {
            **{name: opened.frames.column(name)[first:end] for name in ("episode_index", "frame_index")},
            "value": rng.uniform(-1, 0, end - first).astype(np.float32),
            "value_std": np.full(end - first, 0.1, np.float32),
            "relative_advantage": [None] * (end - first),
        },
    )
    return output.publish({"episodes": len(chosen), "frames": end - first})


def written(uri: str) -> float:
    """Return the bytes of an output: its files, their list and the manifest."""
    return float(sum(size for _, size in storage.list_files(uri)))
