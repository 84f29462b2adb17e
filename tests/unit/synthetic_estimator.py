"""A made-up stage_advantage run for the tests of the report: annotated progress, an estimator's values. Not results."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from synthetic_run import SyntheticRun

from robolift.data.lerobot_writer import FeatureSpec
from robolift.manifest import Manifest
from robolift.schema import Kind
from robolift.stages.stage import execute

COLUMN = "stage_progress_gt"
KAI0 = {"group_by": "all", "population": "all", "demo": "score", "lookahead": 10}


@dataclass
class AnnotatedRun(SyntheticRun):
    """Episodes with annotated progress and an estimator's values: a success ends at 1, a failure half way."""

    data: str = "new"
    head: str = "relative"
    noise: float = 0.02
    annotated: bool = True
    seed: int = 0
    more_features: dict[str, FeatureSpec] = field(default_factory=dict)

    def make_frames(self, rng: np.random.Generator) -> None:
        """Fill ``columns`` with progress besides what every run has."""
        rng = np.random.default_rng([self.seed, 7])
        super().make_frames(rng)
        if self.annotated:
            self.more_features = {COLUMN: FeatureSpec("float32", (1,))}
        lengths, ends = self.columns["lengths"], np.where(self.columns["success"], 1.0, 0.45)
        progress = np.concatenate([end * np.arange(n) / (n - 1) for n, end in zip(lengths, ends, strict=True)])
        first = 0.0 if self.head == "relative" else 0.02
        self.columns[COLUMN] = progress.astype(np.float32)
        self.columns["value"] = (progress + first + rng.normal(0, self.noise, len(progress))).astype(np.float32)
        self.columns["value_std"] = np.zeros(len(progress), np.float32)

    def make_checkpoint(self, dataset: Manifest, targets: Any, rng: np.random.Generator) -> Manifest:
        """Publish an estimator without weights."""
        held_out = {"held_out_episodes": list(range(3, self.num_episodes, 5))} if self.held_out else {}
        row = {"step": 10, "loss": 0.02}

        def write(output: Any) -> None:
            output.write_json("checkpoint.json", {"cameras": list(self.cameras), "step": 300, **held_out})
            output.write_json("curves.json", {"train": [row], "validation": [row]})

        return self.publish(
            "train_value",
            Kind.VALUE_CHECKPOINT,
            inputs={"dataset": [dataset]},
            config={"preset": "tiny", "steps": 300, "head": self.head, "progress_column": COLUMN},
            write=write,
            counts={"steps": 300},
            seed=0,
        )

    def predict(self, dataset: Manifest, checkpoint: Manifest) -> Manifest:
        """Publish ``columns['value']`` as the checkpoint's prediction."""
        inputs = {"dataset": [dataset], "checkpoint": [checkpoint]}
        shard = self.publish("predict_values", Kind.VALUE_SHARD, inputs=inputs, config={"shard": 0, "num_shards": 1})
        columns = ("value", "value_std", "relative_advantage")
        return self.make_table(
            "merge_values", Kind.VALUES, "values", columns, {"dataset": [dataset], "shards": [shard]}
        )

    def label(self, dataset: Manifest, **given: Manifest) -> Manifest:
        """Label from annotated progress, or from the values where they are given."""
        source = {"source": "progress", "column": "value" if given else COLUMN}
        uris = {"dataset": dataset.uri, **{name: made.uri for name, made in given.items()}}
        return execute("label_advantage", {**KAI0, **source}, uris, str(self.root))

    def build(self) -> dict[str, list[str]]:
        """Publish every output of a stage_advantage run; return the inputs of write_report."""
        rng = np.random.default_rng(0)
        first = AnnotatedRun(
            self.root,
            num_episodes=self.num_episodes,
            cameras=self.cameras,
            data="labelled",
            head=self.head,
            noise=self.noise,
            held_out=self.held_out,
            seed=self.seed + 1,
        )
        for run in (first, self):
            run.make_frames(rng)
        labelled, dataset = first.make_dataset(), self.make_dataset()
        checkpoint = first.make_checkpoint(labelled, None, rng)
        labelled_values, values = first.predict(labelled, checkpoint), self.predict(dataset, checkpoint)
        labels = self.label(dataset, values=values)
        learned = {"dataset": [dataset], "labels": [labels], "values": [values], "checkpoint": [checkpoint]}
        found = {
            "dataset": dataset,
            "values": values,
            "labels": labels,
            "checkpoint": checkpoint,
            "labelled": labelled,
            "labelled_values": labelled_values,
            "labelled_labels": first.label(labelled),
        }
        evaluations = [made.uri for made in self.make_evaluations(learned)]
        return {**{name: [made.uri] for name, made in found.items()}, "evaluations": evaluations}
