"""Clips whose worth is known, published as extraction would: a planted utility in some features and the embedding.

A clip's utility decides which one people prefer, and how much noise lies on the movement that it shows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from robolift import schema, storage
from robolift.manifest import Manifest, Output, Plan
from robolift.schema import Kind

FIELDS = ("blur", "exposure", "motion_mean", "motion_var", "jerk", "hands", "hand_motion")
UTILITY = {"blur": 0.8, "motion_var": -0.9, "hands": 0.7}
WIDTH = 24
EMBEDDING_UTILITY = 0.6
"""Of the embedding's first number."""
TIMES = np.round(np.linspace(0, 44, 8)) / 15
ORIGIN = {
    "extractors": {"blur": 1, "exposure": 1, "motion": 1, "hands": 1, "embedding": 1},
    "fields": {
        "blur": "blur",
        "exposure": "exposure",
        "motion_mean": "motion",
        "motion_var": "motion",
        "jerk": "motion",
        "hands": "hands",
        "hand_motion": "hands",
    },
    "hand_model": "ab" * 32,
    "encoder": {"kind": "pixels", "digest": "", "width": WIDTH},
    "decode": {"side": 240, "fps": 15.0, "fit": "letterbox"},
}


def publish(
    root: str,
    stage: str,
    kind: Kind,
    write: Callable[[Path], None],
    *,
    name: str = "",
    config: Mapping[str, Any] | None = None,
    inputs: Mapping[str, list[Manifest]] | None = None,
) -> Manifest:
    """Publish what ``write`` puts into a folder as an output of ``kind``, identified by ``name``."""
    output = Output(
        Plan(
            stage=stage,
            kind=kind,
            root=root,
            config=dict(config or {}),
            inputs=dict(inputs or {}),
            code="0" * 16,
            digest=storage.digest_of({"stage": stage, "name": name, "config": dict(config or {})}),
        )
    )
    write(output.path)
    return output.publish({})


@dataclass(frozen=True, kw_only=True, eq=False)
class World:
    """Published clips and features, and what nobody but the test knows."""

    clips: Manifest
    features: Manifest
    clip_id: tuple[str, ...]
    participant: tuple[str, ...]
    utility: np.ndarray
    scalars: Mapping[str, np.ndarray]
    embedding: np.ndarray


def make_world(
    root: str,
    *,
    num_participants: int = 8,
    videos: int = 2,
    clips: int = 12,
    seed: int = 0,
    width: int = WIDTH,
    participants_known: bool = True,
) -> World:
    """Publish ``num_participants * videos * clips`` clips with features."""
    rng = np.random.default_rng(seed)
    rows = [
        (f"P{person:02d}_{video:02d}", f"P{person:02d}", 45 * number)
        for person in range(num_participants)
        for video in range(videos)
        for number in range(clips)
    ]
    video_ids, people, starts = (list(column) for column in zip(*rows, strict=True))
    clip_ids = [f"{video}_{start:08d}" for video, _, start in rows]
    num = len(rows)
    standard = {name: rng.normal(size=num) for name in FIELDS}
    embedding = rng.normal(size=(num, width))
    utility = sum(weight * standard[name] for name, weight in UTILITY.items()) + EMBEDDING_UTILITY * embedding[:, 0]
    scalars = {
        "blur": 300 + 80 * standard["blur"],
        "exposure": 7 + 0.2 * standard["exposure"],
        "motion_mean": 3 + 0.5 * standard["motion_mean"],
        "motion_var": 2 + 0.4 * standard["motion_var"],
        "jerk": 1 + 0.2 * standard["jerk"],
        "hands": 1 / (1 + np.exp(-standard["hands"])),
        "hand_motion": 0.3 + 0.05 * standard["hand_motion"],
    }
    table = clip_table(clip_ids, video_ids, people if participants_known else [None] * num, starts)
    key = str((num_participants, videos, clips, seed, width, participants_known))
    published = publish_clips(root, table, name=key)
    frames = _frames(clip_ids, embedding, utility, rng)
    features = publish_features(root, clip_ids, scalars, embedding, frames, name=key, clips=published)
    return World(
        clips=published,
        features=features,
        clip_id=tuple(clip_ids),
        participant=tuple(people),
        utility=utility,
        scalars=scalars,
        embedding=embedding,
    )


def clip_table(
    clip_ids: Sequence[str], videos: Sequence[str], people: Sequence[str | None], starts: Sequence[int]
) -> pa.Table:
    """The clips table of SPEC's ClipSet."""
    num = len(clip_ids)
    return pa.table(
        {
            "clip_id": list(clip_ids),
            "source": ["folder"] * num,
            "video_id": list(videos),
            "start_frame": pa.array(starts, pa.int64()),
            "stop_frame": pa.array([start + 90 for start in starts], pa.int64()),
            "fps": [15.0] * num,
            "duration": [3.0] * num,
            "start_s": [start / 30 for start in starts],
            "kind": ["annotated" if row % 2 else "random" for row in range(num)],
            **{name: pa.nulls(num, pa.string()) for name in ("action", "verb", "noun", "narration")},
            "participant_id": pa.array(people, pa.string()),
            "license": ["CC0"] * num,
            "file": [f"clips/{clip_id}.mp4" for clip_id in clip_ids],
            "num_frames": pa.array([45] * num, pa.int32()),
        }
    )


def publish_clips(root: str, table: pa.Table, *, name: str = "") -> Manifest:
    """Publish a ClipSet without its videos."""
    return publish(
        root, "extract_clips", Kind.CLIPS, lambda path: schema.write_table(path / "clips.parquet", table), name=name
    )


def publish_features(
    root: str,
    clip_ids: Sequence[str],
    scalars: Mapping[str, Any],
    embedding: np.ndarray,
    frames: pa.Table | None = None,
    *,
    name: str = "",
    clips: Manifest | None = None,
    origin: Mapping[str, Any] = ORIGIN,
) -> Manifest:
    """Publish a FeatureSet."""

    def write(path: Path) -> None:
        columns = {key: pa.array(values, pa.float64()) for key, values in scalars.items()}
        vectors = pa.array([row.tolist() for row in embedding], pa.list_(pa.float32()))
        table = pa.table({"clip_id": list(clip_ids), **columns, "embedding": vectors}).sort_by("clip_id")
        schema.write_table(path / "features.parquet", table)
        if frames is not None:
            schema.write_table(path / "frames.parquet", frames)
        storage.write_bytes(str(path / "features.json"), storage.to_json_bytes(dict(origin)))

    given = {"clips": [clips]} if clips else {}
    return publish(root, "merge_features", Kind.FEATURES, write, name=name, inputs=given)


def _frames(clip_ids: Sequence[str], embedding: np.ndarray, utility: np.ndarray, rng: np.random.Generator) -> pa.Table:
    """Frames in which the hand's velocity follows from what is seen, the more cleanly the better the clip."""
    width, count = embedding.shape[1], len(TIMES)
    to_velocity = rng.normal(size=(2, 3)) * 0.2
    rows: dict[str, list[Any]] = {name: [] for name in ("clip_id", "frame", "time_s", "embedding")}
    hands, flows = [], []
    for row, clip_id in enumerate(clip_ids):
        seen = embedding[row] + rng.normal(size=(count, width))
        noise = 0.6 / (1 + np.exp(2 * utility[row]))
        velocity = seen[:, -3:] @ to_velocity.T + noise * rng.normal(size=(count, 2))
        steps = velocity[:-1] * np.diff(TIMES)[:, None]
        hands.append(0.5 + np.concatenate([np.zeros((1, 2)), np.cumsum(steps, axis=0)]))
        flows.append(velocity)
        rows["clip_id"] += [clip_id] * count
        rows["frame"] += [round(time * 15) for time in TIMES]
        rows["time_s"] += TIMES.tolist()
        rows["embedding"] += seen.tolist()
    hand, flow = np.concatenate(hands), np.concatenate(flows)
    return pa.table(
        {
            "clip_id": rows["clip_id"],
            "frame": pa.array(rows["frame"], pa.int32()),
            "time_s": rows["time_s"],
            "embedding": pa.array(rows["embedding"], pa.list_(pa.float32())),
            "hand_x": hand[:, 0],
            "hand_y": hand[:, 1],
            "flow_x": flow[:, 0],
            "flow_y": flow[:, 1],
        }
    )


def judge(utility_a: float, utility_b: float, rng: np.random.Generator, *, sharpness: float = 3.0) -> str:
    """What a person says of two clips."""
    difference = sharpness * (utility_a - utility_b)
    if abs(difference) < 0.3:
        return "tie"
    return "A" if rng.random() < 1 / (1 + np.exp(-difference)) else "B"


def preferences_csv(
    path: Path, world: World, pairs: Sequence[tuple[int, int]], *, seed: int = 0, people: Sequence[str] = ("ann",)
) -> str:
    """Write what people say about pairs (rows of clips) as the prototype's CSV and return its address."""
    rng = np.random.default_rng(seed)
    lines = ["pair_id,clip_a_id,clip_b_id,preference,timestamp,annotator_id"]
    for number, (a, b) in enumerate(pairs):
        said = judge(world.utility[a], world.utility[b], rng)
        who = people[number % len(people)]
        moment = f"2025-11-08T10:{number // 60 % 60:02d}:{number % 60:02d}"
        lines.append(f"p{number:05d},{world.clip_id[a]},{world.clip_id[b]},{said},{moment},{who}")
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def random_pairs(world: World, count: int, *, seed: int = 0) -> list[tuple[int, int]]:
    """Different clips, drawn within participants' groups as well as across them."""
    rng = np.random.default_rng(seed)
    return [tuple(map(int, rng.choice(len(world.clip_id), 2, replace=False))) for _ in range(count)]
