"""A clip reward that somebody trained and validated, published by hand as its stages publish theirs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import safetensors.numpy

from robolift import schema, storage
from robolift.data.video import encode_video
from robolift.manifest import Manifest, Output, Plan
from robolift.schema import Kind

FPS = 15.0
SIDE = 64
NUM_FRAMES = 15
FIELDS = ("blur", "motion_mean", "hands")
WEIGHTS = (0.8, -0.05, 0.5)
HOSTILE = "<script>alert(1)</script>"
EXPECTED = {"rho": 0.74, "lower": 0.62, "upper": 0.83}


def ranking(auc: float, half: float = 0.06, pairs: int = 60) -> dict[str, Any]:
    return {
        "pairs": pairs,
        "pair_auc": auc,
        "pair_auc_low": auc - half,
        "pair_auc_high": auc + half,
        "accuracy": auc - 0.02,
        "loss": 0.5,
        "chance_loss": 0.693,
    }


def correlation(rho: float, half: float = 0.1, subsets: int = 60) -> dict[str, Any]:
    named = {"rho": rho, "lower": rho - half, "upper": rho + half, "spearman": rho, "pearson": rho + 0.02}
    return {**named, "pearson_lower": rho - half, "pearson_upper": rho + half, "subsets": subsets}


@dataclass
class ClipRun:
    """Outputs of clip_reward below ``root``; ``build`` publishes them and gives their addresses."""

    root: Path
    num_clips: int = 24
    rho: Mapping[str, Any] = field(default_factory=lambda: {**correlation(0.74), **EXPECTED})
    passed: bool = True
    reasons: Sequence[str] = ()
    controls: Mapping[str, float] = field(default_factory=lambda: {"random": 0.02, "motion": 0.31, "composite": 0.12})
    kind: str = "linear"
    alpha: float | None = 0.71
    ceiling: float | None = 0.93
    annotators: Sequence[str] = ("ada", "bob <b>")
    licenses: Sequence[str] = ("CC0-1.0", "CC-BY-NC-4.0", "unstated")
    held_out: Mapping[str, Any] = field(default_factory=lambda: ranking(0.81))
    sources: Sequence[str] = ("folder", "epic", "folder")

    def build(self) -> dict[str, list[str]]:
        clips = self.make_clips()
        features = self.make_features(clips)
        pairs = self.make_pairs(clips)
        preferences = self.make_preferences(clips, pairs)
        model = self.make_model(clips, features, preferences)
        scores = self.make_scores(features, model)
        validation = self.make_validation(scores, features, model)
        made = {
            "clips": clips,
            "features": features,
            "pairs": pairs,
            "preferences": preferences,
            "model": model,
            "scores": scores,
            "validation": validation,
        }
        return {name: [manifest.uri] for name, manifest in made.items()}

    @property
    def scores(self) -> np.ndarray:
        """Clip 7 k mod n is the k-th best: not the order of names."""
        order = 7 * np.arange(self.num_clips) % self.num_clips
        scores = np.empty(self.num_clips)
        scores[order] = np.linspace(1.8, -1.8, self.num_clips)
        return scores

    @property
    def clip_ids(self) -> list[str]:
        return [f"v{number % 3}_{number:08d}" for number in range(self.num_clips)]

    def publish(
        self,
        stage: str,
        kind: Kind,
        files: Mapping[str, Any],
        inputs: Mapping[str, Sequence[Manifest]],
        *,
        config: Mapping[str, Any] | None = None,
        metrics: Mapping[str, Any] | None = None,
        counts: Mapping[str, int] | None = None,
    ) -> Manifest:
        parents = {name: [one.digest for one in given] for name, given in inputs.items()}
        said = {"stage": stage, "files": {name: str(content) for name, content in files.items()}, "parents": parents}
        output = Output(
            Plan(
                stage=stage,
                kind=kind,
                root=str(self.root),
                config=dict(config or {}),
                inputs={name: list(given) for name, given in inputs.items()},
                code="0" * 16,
                digest=storage.digest_of({**said, "metrics": dict(metrics or {})}),
            )
        )
        for name, content in files.items():
            if isinstance(content, pa.Table):
                schema.write_table(output.path / name, content)
            elif isinstance(content, bytes):
                storage.write_bytes(str(output.path / name), content)
            elif isinstance(content, np.ndarray):
                encode_video(output.path / name, content, fps=FPS, size=(SIDE, SIDE))
            else:
                output.write_json(name, content)
        output.metrics.update(metrics or {})
        return output.publish(counts or {})

    def make_clips(self) -> Manifest:
        num = self.num_clips
        ids = self.clip_ids
        named = {name: pa.nulls(num, pa.string()) for name in ("verb", "noun", "narration", "participant_id")}
        table = pa.table(
            {
                "clip_id": ids,
                "source": [self.sources[number % 3] for number in range(num)],
                "video_id": [f"v{number % 3}" for number in range(num)],
                "kind": ["annotated", "random"] * (num // 2),
                "action": pa.array([f"open {HOSTILE}" if row % 2 == 0 else None for row in range(num)], pa.string()),
                "license": [self.licenses[number % 3] for number in range(num)],
                "file": [f"clips/{clip_id}.mp4" for clip_id in ids],
                "num_frames": pa.array([NUM_FRAMES] * num, pa.int32()),
                "fps": [FPS] * num,
                **named,
            }
        )
        videos = {f"clips/{clip_id}.mp4": self.draw(number) for number, clip_id in enumerate(ids)}
        return self.publish("extract_clips", Kind.CLIPS, {"clips.parquet": table, **videos}, {}, counts={"clips": num})

    def draw(self, number: int) -> np.ndarray:
        """A square that crosses the picture; its colour is the clip's number."""
        video = np.full((NUM_FRAMES, SIDE, SIDE, 3), 200, np.uint8)
        for frame in range(NUM_FRAMES):
            video[frame, 20:44, 2 + 3 * frame : 18 + 3 * frame] = (10 * number % 256, 80, 160)
        return video

    def make_features(self, clips: Manifest) -> Manifest:
        columns = {name: (self.scores * weight).tolist() for name, weight in zip(FIELDS, WEIGHTS, strict=True)}
        columns["hands"][0] = None
        embedding = pa.array([[0.5, 1.0]] * self.num_clips, pa.list_(pa.float32()))
        table = pa.table(
            {
                "clip_id": self.clip_ids,
                **{name: pa.array(v, pa.float64()) for name, v in columns.items()},
                "embedding": embedding,
            }
        )
        return self.publish("merge_features", Kind.FEATURES, {"features.parquet": table}, {"clips": [clips]})

    def make_pairs(self, clips: Manifest) -> Manifest:
        """Twenty neighbours, and the first two once more with sides exchanged."""
        ids = self.clip_ids
        sides = [(number, number + 1) for number in range(20)] + [(1, 0)]
        table = pa.table(
            {
                "pair_id": [f"p{number}" for number in range(21)],
                "clip_a_id": [ids[a % self.num_clips] for a, _ in sides],
                "clip_b_id": [ids[b % self.num_clips] for _, b in sides],
                "reason": ["random"] * 20 + ["repeat"],
            }
        )
        return self.publish("propose_pairs", Kind.PAIRS, {"pairs.parquet": table}, {"clips": [clips]})

    def make_preferences(self, clips: Manifest, pairs: Manifest) -> Manifest:
        people = [
            {
                "name": name,
                "counted": True,
                "annotations": 18,
                "ties": 2,
                "repeats": {"pairs": 4, "without_ties": 4},
                "repeat_consistency": 0.75,
                "accuracy_ceiling": self.ceiling,
            }
            for name in self.annotators
        ]
        document = {
            "annotations": 18 * len(people),
            "pairs": 18,
            "ties": 2 * len(people),
            "alpha": self.alpha,
            "repeat_consistency": 0.75 if self.ceiling is not None else None,
            "accuracy_ceiling": self.ceiling,
            "contradictions": [{"annotator": "ada", "clips": self.clip_ids[:2], "pairs": ["p0", "p9"]}],
            "intransitive": {"circles": 1, "triples": 9},
            "duplicates": 0,
            "skipped": [{"annotator": "ada", "pair_id": "p3", "reason": HOSTILE}],
            "annotators": people,
        }
        files = {"agreement.json": document}
        return self.publish("import_preferences", Kind.PREFERENCES, files, {"clips": [clips], "pairs": [pairs]})

    def make_model(self, clips: Manifest, features: Manifest, preferences: Manifest) -> Manifest:
        members = {f"member.{number}.weights": np.array([*WEIGHTS, 9.0]) + 0.1 * (number - 2) for number in range(5)}
        document = {
            "kind": self.kind,
            "fields": list(FIELDS),
            "embedding": 192,
            "pca": 2 if self.kind == "linear" else None,
            "ensemble": 5,
            "held_out_videos": ["v2"],
        }
        metrics = {
            "train": ranking(0.9),
            "held_out": dict(self.held_out),
            "accuracy_ceiling": self.ceiling,
            "expected_pair_auc": 0.96 if self.ceiling is not None else None,
            "controls": {"random": ranking(0.5), "motion": ranking(0.58)},
        }
        files = {"model.json": document, "model.safetensors": safetensors.numpy.save(members)}
        inputs = {"features": [features], "preferences": [preferences], "clips": [clips]}
        config = {"model": self.kind}
        return self.publish("train_reward", Kind.REWARD_MODEL, files, inputs, config=config, metrics=metrics)

    def make_scores(self, features: Manifest, model: Manifest) -> Manifest:
        table = pa.table({"clip_id": self.clip_ids, "score": self.scores, "score_std": [0.25] * self.num_clips})
        inputs = {"features": [features], "model": [model]}
        return self.publish("score_clips", Kind.SCORES, {"scores.parquet": table}, inputs, config={"method": "model"})

    def make_validation(self, scores: Manifest, features: Manifest, model: Manifest) -> Manifest:
        subsets = int(self.rho["subsets"])
        means = np.linspace(-1, 1, subsets)
        document = {
            "rho": dict(self.rho),
            "passed": self.passed,
            "reasons": list(self.reasons),
            "rho_min": 0.5,
            "controls": {name: correlation(rho) for name, rho in self.controls.items()},
            "ablations": [
                {"drop": ["motion"], "rho": 0.7, "drop_in_rho": 0.04, "lower": -0.05, "upper": 0.13, "passed": False},
                {"drop": ["hands"], "rho": 0.5, "drop_in_rho": 0.24, "lower": 0.11, "upper": 0.36, "passed": True},
            ],
            "power": {"subsets": subsets, "interval_of_rho_min": [0.28, 0.67]},
            "chance": {"upper": 0.27, "share_as_good": 0.0},
            "baseline": {"mean": -1.0, "std": 0.1},
            "preferences": None,
            "delta_m": [
                {"subset": number, "mean_score": float(mean), "delta_m": float(0.3 * mean + 0.1 * (-1) ** number)}
                for number, mean in enumerate(means)
            ],
        }
        inputs = {"scores": [scores], "features": [features], "model": [model]}
        return self.publish("validate_reward", Kind.VALIDATION, {"validation.json": document}, inputs)
