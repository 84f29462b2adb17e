"""A made-up labelling run for the tests of the report: what a model and people might say. Not results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from synthetic_run import SyntheticRun

from robolift.manifest import Manifest, Output
from robolift.schema import REWARDS, Kind
from robolift.stages.stage import execute

NUM_ANCHORS = 6
HOSTILE = '<script>alert("labels")</script> <img src=x onerror=alert(1)> & "percent": 140'
PROMPT = "These frames show a robot. Task: {task}. Is the task done? <answer> True or False."
THRESHOLDS = {"min_coverage": 0.85, "min_success_auroc": 0.8, "min_agreement": 0.6}
LABELLER: dict[str, Any] = {
    "protocol": "logprob",
    "protocol_version": 1,
    "transport": "openai",
    "model": "models/made-up-vl-8b",
    "model_digest": "",
    "prompt_sha256": "ab" * 32,
    "cameras": ["observation.images.topview"],
    "sampling": "causal_prefix",
    "max_frames": 8,
    "num_prefixes": NUM_ANCHORS,
    "image_side": 448,
    "dtype": "bfloat16",
    "seed": 0,
}


def measure(value: float | None, clock: float | None, threshold: float | None, passed: bool | None) -> dict[str, Any]:
    return {"value": value, "clock": clock, "threshold": threshold, "passed": passed, "about": "As its name says."}


@dataclass
class RewardRun(SyntheticRun):
    """Builds and holds the outputs of a labelling: the last failure gets no usable answer, every third has people."""

    num_episodes: int = 12
    asked: bool = True
    reviewed: bool = True
    failures: bool = True
    failed_episodes: Sequence[int] | None = None
    calibration: str = "none"
    answer: str = HOSTILE
    measures: Mapping[str, Mapping[str, Any]] | None = None
    alarms: Sequence[str] = ()
    passed: bool = True
    marks: dict[int, np.ndarray] = field(default_factory=dict)
    tables: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)

    def build(self) -> dict[str, list[str]]:
        """Publish every output; return the inputs of write_report."""
        rng = np.random.default_rng(0)
        self.make_frames(rng)
        if not self.failures:
            self.columns["success"] = np.ones(self.num_episodes, dtype=bool)
        self.make_labels(rng)
        dataset = self.make_dataset()
        plan = self.make_plan(dataset)
        shards = [self.make_shard(dataset, plan, shard) for shard in range(2)]
        automatic = self.make_rewards(
            "collect_rewards",
            "automatic",
            {"shards": shards, "plan": [plan], "dataset": [dataset]},
            {"calibration": self.calibration},
            {"errors.json": self.errors},
        )
        reviews = self.make_rewards(
            "import_reviews", "reviews", {"dataset": [dataset]}, {}, {"reviews.json": self.said}
        )
        quality = self.make_quality(dataset, automatic, reviews)
        parents = {"dataset": dataset.uri, "automatic": automatic.uri, "reviews": reviews.uri, "quality": quality.uri}
        rewards = execute("merge_rewards", {"quality_gate": False}, parents, str(self.root))
        found = {"dataset": dataset, "plan": plan, "automatic": automatic, "reviews": reviews, "quality": quality}
        return {name: [made.uri] for name, made in {**found, "rewards": rewards}.items()}

    @property
    def unusable(self) -> list[int]:
        """Episodes without a usable answer."""
        if self.failed_episodes is not None:
            return list(self.failed_episodes)
        return [int(np.flatnonzero(~self.columns["success"])[-1])] if self.failures else []

    @property
    def errors(self) -> list[dict[str, Any]]:
        """What errors.json holds."""
        texts = [self.answer, "still nothing"]
        message = "two answers without a number"
        return [
            {"episode_index": episode, "class": "unparsable", "message": message, "answers": texts}
            for episode in (self.unusable if self.asked else [])
        ]

    @property
    def said(self) -> dict[str, Any]:
        """What reviews.json holds."""
        if not self.reviewed:
            return {"annotators": [], "episodes": {"total": self.num_episodes, "used": 0}}
        nobody = {"skipped": 0, "half_done": 0, "gold_accuracy": None, "counted": True}
        return {
            "ask": ["segments", "outcome"],
            "annotators": [
                {**nobody, "name": "ada", "completed": 4, "skipped": 1, "gold_accuracy": 1.0},
                {**nobody, "name": "bob <b>", "completed": 2, "half_done": 1},
            ],
            "episodes": {
                "total": self.num_episodes,
                "used": 4,
                "too_few_annotators": 0,
                "half_done": 1,
                "disagreement": [
                    {"episode_index": 0, "disagreement": 0.125},
                    {"episode_index": 3, "disagreement": 0.0},
                ],
            },
            "agreement": {"outcome": None, "preference": None, "tri": 0.71},
            "skips": [{"item": "episode:5", "annotator": "ada", "reason": "arm <hides> it"}],
        }

    def make_labels(self, rng: np.random.Generator) -> None:
        """Fill ``tables``: the model's, people's and the merged columns."""
        num = self.num_frames
        empty = {
            **{name: np.full(num, np.nan) for name in ("progress", "success_prob", "reward", "confidence")},
            **{name: np.full(num, np.nan) for name in ("tri", "stage")},
            "anchor": np.zeros(num, dtype=bool),
            "source": np.full(num, "none", dtype=object),
        }
        self.tables = {name: {key: values.copy() for key, values in empty.items()} for name in ("automatic", "reviews")}
        starts = np.concatenate([[0], np.cumsum(self.columns["lengths"])])
        for episode in range(self.num_episodes):
            rows = slice(int(starts[episode]), int(starts[episode + 1]))
            success = bool(self.columns["success"][episode])
            if self.asked and episode not in self.unusable:
                self._ask(rows, rng, success=success)
            if self.reviewed and episode % 3 == 0:
                self._review(rows, episode, success=success)

    def _ask(self, rows: slice, rng: np.random.Generator, *, success: bool) -> None:
        length = rows.stop - rows.start
        at = np.linspace(0, length - 1, NUM_ANCHORS).round().astype(int)
        rise = np.linspace(0.05, 0.93, NUM_ANCHORS) if success else 0.55 * np.sin(np.linspace(0.1, 2.6, NUM_ANCHORS))
        said = np.clip(rise + rng.normal(0, 0.06, NUM_ANCHORS), 0, 1)
        table = self.tables["automatic"]
        table["progress"][rows] = np.interp(np.arange(length), at, said)
        table["success_prob"][rows] = table["progress"][rows] ** 2
        table["anchor"][rows.start + at] = True
        table["source"][rows] = "vlm"

    def _review(self, rows: slice, episode: int, *, success: bool) -> None:
        length = rows.stop - rows.start
        marks = np.ones(length)
        marks[length // 2 :] = 1 if success else -1
        marks[: length // 8] = 0
        marks = self.marks.get(episode, marks)
        table = self.tables["reviews"]
        table["tri"][rows] = marks
        table["success_prob"][rows] = float(success)
        table["confidence"][rows] = 1.0
        table["anchor"][rows] = True
        table["source"][rows] = "human"

    def make_plan(self, dataset: Manifest) -> Manifest:
        """Publish what the model is to be asked."""
        requests = self.num_episodes * NUM_ANCHORS if self.asked else 0
        totals = {
            "episodes": self.num_episodes,
            "requests": requests,
            "pictures": 8 * requests,
            "input_tokens_estimate": 900 * requests,
            "output_tokens_estimate": requests,
        }
        labeller = {**LABELLER, "cameras": list(self.cameras)[-1:]}
        if not self.asked:
            labeller |= {"protocol": "none", "transport": "none", "model": ""}
        document = {"labeller": labeller, "prompt": PROMPT if self.asked else "", "totals": totals}
        return self.publish(
            "plan_labels",
            Kind.LABEL_PLAN,
            inputs={"dataset": [dataset]},
            config={"model": labeller["model"], "protocol": "logprob"},
            write=lambda output: output.write_json("plan.json", document),
            counts={"episodes": self.num_episodes, "requests": requests},
        )

    def make_shard(self, dataset: Manifest, plan: Manifest, shard: int) -> Manifest:
        """Publish one shard's counts; its tables are not read by the report."""
        tokens = {"requests": 36, "input_tokens": 31_500 + shard, "output_tokens": 36} if self.asked else {}
        return self.publish(
            "annotate_rewards",
            Kind.REWARD_SHARD,
            inputs={"dataset": [dataset], "plan": [plan]},
            config={"shard": shard, "num_shards": 2},
            counts={"episodes": self.num_episodes // 2, **tokens},
        )

    def make_rewards(
        self,
        stage: str,
        name: str,
        inputs: Mapping[str, Sequence[Manifest]],
        config: Mapping[str, Any],
        documents: Mapping[str, Any],
    ) -> Manifest:
        """Publish one rewards table."""
        columns = {
            "episode_index": self.columns["episode_index"],
            "frame_index": self.columns["frame_index"],
            **self.tables[name],
        }
        arrays = [
            pa.array(columns[spec.name], type=spec.type, from_pandas=True)
            if pa.types.is_floating(spec.type)
            else pa.array(
                [None if value != value else value for value in columns[spec.name].tolist()], pa.float64()
            ).cast(spec.type)
            if spec.name in ("tri", "stage")
            else pa.array(columns[spec.name], type=spec.type)
            for spec in REWARDS
        ]
        table = pa.Table.from_arrays(arrays, schema=REWARDS)

        def write(output: Output) -> None:
            pq.write_table(table, output.path / "rewards.parquet")
            for file, document in documents.items():
                output.write_json(file, document)

        labelled = int((self.tables[name]["source"] != "none").sum())
        counts = {"episodes": self.num_episodes, "frames": self.num_frames, "labelled_frames": labelled}
        return self.publish(stage, Kind.REWARDS, inputs=inputs, config=config, write=write, counts=counts)

    def make_quality(self, dataset: Manifest, automatic: Manifest, reviews: Manifest) -> Manifest:
        """Measure the labels, or publish made-up measures."""
        if self.measures is None:
            parents = {"dataset": dataset.uri, "automatic": automatic.uri, "reviews": reviews.uri}
            return execute("label_quality", THRESHOLDS, parents, str(self.root))
        document = {
            "measures": self.measures,
            "passed": self.passed,
            "alarms": list(self.alarms),
            "per_task": {"a": {"episodes": 12, "coverage": {"value": 0.93, "clock": 0.93}}},
        }
        return self.publish(
            "label_quality",
            Kind.QUALITY,
            inputs={"dataset": [dataset], "automatic": [automatic], "reviews": [reviews]},
            config={"min_coverage": 0.9},
            write=lambda output: output.write_json("quality.json", document),
            counts={"measures": len(self.measures)},
        )
