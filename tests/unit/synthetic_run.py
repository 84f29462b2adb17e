"""A made-up recap run for the tests of the report: plausible arrays, published like real outputs. Not results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from robolift.data.lerobot_writer import FeatureSpec, LeRobotWriter
from robolift.data.video import encode_video
from robolift.manifest import Manifest, Output, Plan
from robolift.schema import Kind
from robolift.stages.stage import execute
from robolift.storage import digest_of

TASK = "pick up the puck and place it at the goal"
TOP, GRIPPER = "observation.images.topview", "observation.images.gripperPOV"
RATES = {
    ("plain", "none"): 0.14,
    ("filtered", "none"): 0.34,
    ("shuffled", "positive"): 0.13,
    ("advantage", "negative"): 0.01,
    ("advantage", "positive"): 0.82,
}
FPS, SIZE = 40, 64
FEATURES = {
    "action": FeatureSpec("float32", (4,)),
    "control_mode": FeatureSpec("string"),
    "is_good_gt": FeatureSpec("int64"),
}


@dataclass
class SyntheticRun:
    """Builds and holds the outputs of a run below ``root``."""

    root: Path
    num_episodes: int = 24
    cameras: tuple[str, ...] = (TOP,)
    sees_state: bool = True
    rates: Mapping[tuple[str, str], float] = field(default_factory=lambda: dict(RATES))
    training_seeds: Sequence[int] = (0,)
    num_rollouts: int = 100
    first_seed: Mapping[str, int] = field(default_factory=dict)
    num_slices: int = 0
    has_truth: bool = True
    num_films: int = 0
    held_out: bool = True
    policy_settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    data: str = "synthetic"
    more_features: Mapping[str, FeatureSpec] = field(default_factory=dict)
    columns: dict[str, np.ndarray] = field(default_factory=dict)

    def publish(
        self,
        stage: str,
        kind: Kind,
        *,
        inputs: Mapping[str, Sequence[Manifest]] | None = None,
        config: Mapping[str, Any] | None = None,
        write: Callable[[Output], None] = lambda output: None,
        counts: Mapping[str, int] | None = None,
        seed: int | None = None,
    ) -> Manifest:
        """Publish one output as its stage would."""
        given = {name: list(parents) for name, parents in (inputs or {}).items()}
        settings = dict(config or {})
        parents = {name: [made.digest for made in found] for name, found in given.items()}
        digest = digest_of({"stage": stage, "config": settings, "inputs": parents, "seed": seed})
        plan = Plan(
            stage=stage,
            kind=kind,
            root=str(self.root),
            config=settings,
            inputs=given,
            code="c0de" * 4,
            digest=digest,
            seed=seed,
        )
        if done := plan.finished():
            return done
        output = Output(plan)
        write(output)
        return output.publish(counts or {})

    def build(self) -> dict[str, list[str]]:
        """Publish every output; return the inputs of write_report."""
        rng = np.random.default_rng(0)
        self.make_frames(rng)
        dataset = self.make_dataset()
        targets = execute("label_returns", {}, {"dataset": dataset.uri}, str(self.root))
        checkpoint = self.make_checkpoint(dataset, targets, rng)
        shards = [
            self.publish(
                "predict_values",
                Kind.VALUE_SHARD,
                inputs={"dataset": [dataset], "checkpoint": [checkpoint]},
                config={"shard": shard, "num_shards": 2},
                counts={"frames": self.num_frames // 2},
            )
            for shard in range(2)
        ]
        values = self.make_table(
            "merge_values",
            Kind.VALUES,
            "values",
            ("value", "value_std", "relative_advantage"),
            {"dataset": [dataset], "shards": shards},
        )
        scheme = {"scheme": "slices", "num_slices": self.num_slices} if self.num_slices else {}
        parents = {"dataset": dataset.uri, "targets": targets.uri, "values": values.uri}
        labels = execute("label_advantage", {"lookahead": 10, **scheme}, parents, str(self.root))
        learned = {"dataset": [dataset], "labels": [labels], "values": [values], "checkpoint": [checkpoint]}
        evaluations = self.make_evaluations(learned)
        found = {"dataset": dataset, "targets": targets, "values": values, "labels": labels, "checkpoint": checkpoint}
        return {
            **{name: [made.uri] for name, made in found.items()},
            "evaluations": [made.uri for made in evaluations],
        }

    @property
    def num_frames(self) -> int:
        """Frames of all episodes."""
        return len(self.columns["frame_index"])

    def make_frames(self, rng: np.random.Generator) -> None:
        """Fill ``columns``: every eighth episode a demo, every sixth corrected, four in ten of the rest succeed."""
        number = np.arange(self.num_episodes)
        kind = np.where(number % 8 == 0, "demo", "rollout")
        corrected = (number % 6 == 1) & (kind != "demo")
        success = (kind == "demo") | corrected | (rng.random(self.num_episodes) < 0.4)
        lengths = np.where(success, rng.integers(40, 74, self.num_episodes), 75)
        parts: dict[str, list[np.ndarray]] = {}
        for index, length in enumerate(lengths):
            made = _episode(
                rng, int(length), kind[index], success=success[index], corrected=corrected[index], scale=150.0
            )
            for name, values in made.items():
                parts.setdefault(name, []).append(values)
        self.columns.update({name: np.concatenate(values) for name, values in parts.items()})
        self.columns.update(lengths=lengths, kind=kind, success=success)
        self.columns["episode_index"] = np.repeat(number, lengths)
        self.columns["relative_advantage"] = np.full(self.num_frames, np.nan, dtype=np.float32)

    def make_dataset(self) -> Manifest:
        """Write a LeRobot recording and import it."""
        recording = self.publish(
            "simulate_episodes",
            Kind.RECORDING,
            config={"task": "pick-place-v3", "num_demos": 3, "cameras": list(self.cameras), "data": self.data},
            write=self._write_recording,
            counts={"episodes": self.num_episodes},
            seed=0,
        )
        return execute("import_dataset", {"iteration": 1}, {"recording": recording.uri}, str(self.root))

    def _write_recording(self, output: Output) -> None:
        features = {name: spec for name, spec in FEATURES.items() if self.has_truth or name != "is_good_gt"}
        features |= self.more_features
        writer = LeRobotWriter(
            output.path,
            fps=FPS,
            features=features,
            cameras=dict.fromkeys(self.cameras, (SIZE, SIZE)),
            robot_type="synthetic",
            version="v3.0",
            extra_info={"robolift": {"simulator": "metaworld", "task": "pick-place-v3"}},
        )
        for index, length in enumerate(self.columns["lengths"]):
            rows = self.columns["episode_index"] == index
            columns = {
                "action": np.zeros((length, 4), dtype=np.float32),
                "control_mode": self.columns["control_mode"][rows].tolist(),
                "is_good_gt": self.columns["is_good"][rows],
                **{name: self.columns[name][rows] for name in self.more_features},
            }
            extra = {
                "outcome": "success" if self.columns["success"][index] else "failure",
                "kind": str(self.columns["kind"][index]),
            }
            writer.add_episode(
                {name: columns[name] for name in features},
                videos={camera: [_picture(t / length) for t in range(length)] for camera in self.cameras},
                task=TASK,
                extra=extra,
            )
        writer.finish()

    def make_table(
        self, stage: str, kind: Kind, name: str, columns: Sequence[str], inputs: Mapping[str, Sequence[Manifest]]
    ) -> Manifest:
        """Publish a sidecar table of some of the columns."""
        table = {key: self.columns[key] for key in ("episode_index", "frame_index", *columns)}
        counts = {"episodes": self.num_episodes, "frames": self.num_frames}
        return self.publish(
            stage, kind, inputs=inputs, write=lambda output: output.write_table(name, table), counts=counts
        )

    def make_checkpoint(self, dataset: Manifest, targets: Manifest, rng: np.random.Generator) -> Manifest:
        """Publish a value model without weights."""
        held_out = {"held_out_episodes": list(range(3, self.num_episodes, 5))} if self.held_out else {}
        curves = _curves(rng, 5.3, 2.1, 2.6, 200)

        def write(output: Output) -> None:
            cameras = [] if self.sees_state else list(self.cameras)
            output.write_json("checkpoint.json", {"cameras": cameras, "step": 1500, **held_out})
            output.write_json("curves.json", curves)

        return self.publish(
            "train_value",
            Kind.VALUE_CHECKPOINT,
            inputs={"dataset": [dataset], "targets": [targets]},
            config={"preset": "tiny", "steps": 2000, "batch_size": 64, "learning_rate": 1e-3},
            write=write,
            counts={"steps": 2000},
            seed=0,
        )

    def make_evaluations(self, learned: Mapping[str, Sequence[Manifest]]) -> list[Manifest]:
        """Publish a policy and its evaluation for each variant and training seed."""
        return [
            self._evaluation(learned, variant, seed)
            for seed in self.training_seeds
            for variant in dict.fromkeys(variant for variant, _ in self.rates)
        ]

    def _evaluation(self, learned: Mapping[str, Sequence[Manifest]], variant: str, seed: int) -> Manifest:
        rng = np.random.default_rng([seed, *variant.encode()])
        state = ["observation.state", *(["observation.environment_state"] if self.sees_state else [])]
        curves = _curves(rng, 1.0, 0.31, 0.38, 100)

        def write_policy(output: Output) -> None:
            cameras = [] if self.sees_state else list(self.cameras)
            output.write_json("policy.json", {"cameras": cameras, "state_keys": state})
            output.write_json("curves.json", curves)

        settings = {"variant": variant, "steps": 1000, "preset": "tiny", **self.policy_settings.get(variant, {})}
        policy = self.publish(
            "train_policy",
            Kind.POLICY,
            inputs=learned,
            config=settings,
            write=write_policy,
            counts={"steps": 1000},
            seed=seed,
        )
        conditions = [condition for name, condition in self.rates if name == variant]
        rollouts = pa.concat_tables([self._rollouts(rng, variant, condition) for condition in conditions])

        def write_evaluation(output: Output) -> None:
            pq.write_table(rollouts, output.path / "rollouts.parquet")
            rows = [row for row in rollouts.to_pylist() if row["seed"] < 7000 + self.num_films]
            for row in rows:
                frames = np.stack([np.tile(_picture(t / row["length"]), (1, 2, 1)) for t in range(row["length"])])
                path = output.path / "videos" / row["condition"] / f"{row['seed']}.mp4"
                encode_video(path, frames, fps=FPS, size=frames.shape[1:3])

        return self.publish(
            "evaluate_policy",
            Kind.EVALUATION,
            inputs={"dataset": learned["dataset"], "policy": [policy]},
            config={"num_episodes": self.num_rollouts},
            write=write_evaluation,
            counts={"rollouts": rollouts.num_rows},
            seed=7000,
        )

    def _rollouts(self, rng: np.random.Generator, variant: str, condition: str) -> pa.Table:
        num = self.num_rollouts
        success = np.arange(num) < round(self.rates[(variant, condition)] * num)
        return pa.table(
            {
                "condition": [condition] * num,
                "prompt": [TASK if condition == "none" else f"{TASK}, Advantage: {condition}"] * num,
                "seed": self.first_seed.get(variant, 7000) + rng.permutation(num),
                "success": success,
                "length": np.where(success, rng.integers(50, 120, num), 150).astype(np.int32),
            }
        )


def _episode(
    rng: np.random.Generator, length: int, kind: str, *, success: bool, corrected: bool, scale: float
) -> dict[str, np.ndarray]:
    frame = np.arange(length)
    mode = np.full(length, "demo" if kind == "demo" else "autonomous", dtype=object)
    if corrected:
        mode[length // 2 :] = "correcting"
    target = (-(length - 1 - frame) - (0 if success else scale / 2)) / scale
    drift = np.cumsum(rng.normal(0, 0.012, length))
    value = np.clip(target + drift - drift.mean(), -1, 0)
    ahead = np.minimum(frame + 10, length - 1)
    rise = value[ahead] - value - (ahead - frame) / scale
    good = (mode != "autonomous") | (rise + rng.normal(0, 0.03, length) > 0)
    return {
        "frame_index": frame,
        "control_mode": mode,
        "value": value.astype(np.float32),
        "value_std": (0.02 + 0.03 * rng.random(length)).astype(np.float32),
        "is_good": good.astype(np.int64),
    }


def _picture(progress: float) -> np.ndarray:
    """Return a table with a puck that moves towards a goal."""
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE
    image = np.stack([120 + 60 * y, 130 + 40 * x, np.full_like(x, 140)], axis=-1)
    image[(x - 0.2 - 0.6 * progress) ** 2 + (y - 0.5 - 0.2 * np.sin(6 * progress)) ** 2 < 0.008] = (200, 70, 40)
    image[(x - 0.8) ** 2 + (y - 0.4) ** 2 < 0.006] = (40, 160, 90)
    return image.astype(np.uint8)


def _curves(rng: np.random.Generator, start: float, train: float, held_out: float, num: int) -> dict[str, Any]:
    decay = np.exp(-np.arange(num) / (num / 6))
    noise = rng.normal(0, 0.03, num)
    learned = [{"step": 10 * (i + 1), "loss": float(train + (start - train) * decay[i] + noise[i])} for i in range(num)]
    measured = [
        {"step": 10 * (i + 1), "loss": float(held_out + (start - held_out) * decay[i]), "spearman": 0.5 + i / 1000}
        for i in range(9, num, 10)
    ]
    return {"train": learned, "validation": measured}
