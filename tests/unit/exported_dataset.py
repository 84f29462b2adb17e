"""Makes the inputs of an export, with numbers that say where they belong, and reads what came out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import synthetic

from robolift import storage
from robolift.data.columns import to_numpy
from robolift.data.dataset import Dataset
from robolift.data.lerobot import LeRobotReader
from robolift.labeling.prompts import advantage_prompts
from robolift.manifest import Manifest, Output, Plan
from robolift.schema import Kind
from robolift.stages.stage import execute

PISTAR = {
    "intervention": "int64",
    "reward": "float32",
    "reward_label": "float32",
    "value_label": "float32",
    "adv_ind": "string",
}


VERSIONS = ("v2.1", "v3.0")


CUTS = [("v2.1", "v2.1"), ("v2.1", "v3.0"), ("v3.0", "v2.1"), ("v3.0", "v3.0")]


def publish(
    root: str, stage: str, kind: Kind, dataset: Manifest, tables: dict, documents: dict | None = None
) -> Manifest:
    digest = storage.digest_of(
        [stage, dataset.digest, {k: {c: list(map(str, v)) for c, v in t.items()} for k, t in tables.items()}]
    )
    plan = Plan(stage=stage, kind=kind, root=root, config={}, inputs={"dataset": [dataset]}, code="c0de", digest=digest)
    output = Output(plan)
    for name, table in tables.items():
        output.write_table(name, table)
    for name, document in (documents or {}).items():
        output.write_json(name, document)
    return output.publish({"frames": 1})


def learned(root: str, dataset: Manifest, *, num_slices: int | None = None) -> dict[str, str]:
    """Publish targets, values and labels with recognisable numbers: frame n of the whole has n/1000 in them."""
    frames, tasks = dataset.table("frames"), Dataset.open(dataset).tasks
    count = frames.num_rows
    keys = {name: frames.column(name).to_numpy() for name in ("episode_index", "frame_index")}
    ramp = np.arange(count, dtype=np.float32) / 1000
    names = ["positive" if n % 3 else "negative" for n in range(count)]
    prompts = advantage_prompts(tasks, num_slices)
    labels = {
        **keys,
        "advantage": ramp,
        "valid": np.ones(count, bool),
        "advantage_label": names if num_slices is None else ["none"] * count,
        "slice": [None if num_slices is None else n % num_slices for n in range(count)],
        "reason": ["threshold"] * count,
        "group": ["all"] * count,
        "weight": ramp + 1,
        "prompt_index": [1 + n % (2 if num_slices is None else num_slices) for n in range(count)],
    }
    made = {
        "targets": publish(
            root,
            "label_returns",
            Kind.TARGETS,
            dataset,
            {"targets": {**keys, "value_target": -ramp, "reward": -ramp / 2}},
        ),
        "values": publish(
            root,
            "merge_values",
            Kind.VALUES,
            dataset,
            {"values": {**keys, "value": -ramp / 4, "value_std": ramp, "relative_advantage": [None] * count}},
        ),
        "labels": publish(
            root, "label_advantage", Kind.LABELS, dataset, {"labels": labels}, {"prompts.json": prompts.to_dict()}
        ),
    }
    return {"dataset": dataset.uri, **{name: manifest.uri for name, manifest in made.items()}}


def record_both(root: Path) -> dict[str, Path]:
    """Write the same eight episodes in both versions."""
    for version in VERSIONS:
        synthetic.write_recording(root / version, version=version)
    return {version: root / version for version in VERSIONS}


def learn_from(recordings: dict[str, Path], root: Path) -> dict[str, dict[str, str]]:
    """Import each recording and publish what was learned from it: all inputs of an export, by version of the source."""
    return {
        version: learned(str(root), execute("import_dataset", {"dataset_uri": str(path)}, {}, str(root)))
        for version, path in recordings.items()
    }


def run_export(inputs: dict[str, str], root: str, **config) -> Manifest:
    return execute("export_dataset", config, inputs, root)


def opened(exported: Manifest) -> LeRobotReader:
    return LeRobotReader.open(storage.join(exported.uri, "dataset"))


def folder(exported: Manifest) -> Path:
    return storage.local_path(exported.uri) / "dataset"


def info_of(path: Path) -> dict:
    return json.loads((path / "meta/info.json").read_text())


def whole(reader: LeRobotReader, name: str) -> np.ndarray:
    return np.concatenate([to_numpy(reader.table(meta.index, [name]).column(name)) for meta in reader.episodes])


def tree(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def raw_rows(path: Path) -> pa.Table:
    return pa.concat_tables([pq.read_table(file) for file in sorted((path / "data").rglob("*.parquet"))])
