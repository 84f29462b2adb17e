"""What the tests of both labelling stages stand on: small datasets and predictions, published like real ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa

from robolift.data.dataset import DATASET_FILE, Dataset, DatasetFacts
from robolift.manifest import Manifest, Output, Plan
from robolift.schema import Kind
from robolift.stages.stage import execute
from robolift.storage import digest_of

FPS = 10.0


def publish(
    root: str,
    stage: str,
    kind: Kind,
    *,
    tables: Mapping[str, Any],
    documents: Mapping[str, Any] | None = None,
    inputs: Mapping[str, list[Manifest]] | None = None,
    config: Mapping[str, Any] | None = None,
) -> Manifest:
    """Publish tables as an output of ``kind``; equal content gives an equal digest."""
    rows = {
        name: {key: list(map(str, column)) for key, column in _columns(table).items()} for name, table in tables.items()
    }
    output = Output(
        Plan(
            stage=stage,
            kind=kind,
            root=root,
            config=dict(config or {}),
            inputs=dict(inputs or {}),
            code="0" * 16,
            digest=digest_of({"stage": stage, "tables": rows, "documents": dict(documents or {})}),
        )
    )
    for name, table in tables.items():
        output.write_table(name, _columns(table))
    for name, document in (documents or {}).items():
        output.write_json(name, document)
    return output.publish({"frames": 1})


def _columns(table: Any) -> dict[str, Any]:
    return {name: table[name].to_pylist() for name in table.column_names} if isinstance(table, pa.Table) else table


def publish_dataset(
    root: str,
    lengths: Sequence[int],
    *,
    outcome: Sequence[str] | str = "success",
    kind: Sequence[str] | str = "rollout",
    task: Sequence[str] | str = "fold",
    iteration: Sequence[int] | int = 1,
    control_mode: Sequence[str] | None = None,
    tasks: Sequence[str] | None = None,
) -> Manifest:
    """Publish a dataset whose frames are known and whose LeRobot sources nobody may need to open."""
    num = len(lengths)

    def each(value: Any) -> list[Any]:
        return [value] * num if isinstance(value, (str, int)) else list(value)

    kinds, frames = each(kind), int(sum(lengths))
    episode = np.repeat(np.arange(num), lengths)
    frame = np.concatenate([np.arange(length) for length in lengths])
    modes = control_mode or ["demo" if kinds[number] == "demo" else "autonomous" for number in episode]
    facts = DatasetFacts(
        sources=(),
        fps=FPS,
        robot_type="arm",
        cameras=(),
        tasks=tuple(tasks or dict.fromkeys(each(task))),
        features={"action": {"dtype": "float32", "shape": [4], "names": None}},
        simulator=None,
    )
    return publish(
        root,
        "import_dataset",
        Kind.DATASET,
        tables={
            "episodes": {
                "episode_index": np.arange(num),
                "length": list(lengths),
                "task": each(task),
                "outcome": each(outcome),
                "kind": kinds,
                "iteration": each(iteration),
            },
            "frames": {
                "episode_index": episode,
                "frame_index": frame,
                "timestamp": (frame / FPS).astype(np.float32),
                "control_mode": list(modes)[:frames],
            },
        },
        documents={DATASET_FILE: asdict(facts)},
    )


def publish_values(
    root: str, dataset: Manifest, value: Any, *, std: Any = None, relative: Any = None, rows: slice = slice(None)
) -> Manifest:
    """Publish ``value`` as the prediction for a dataset's frames, or for some ``rows`` of them."""
    frames = dataset.table("frames")
    keys = {key: frames.column(key).to_numpy()[rows] for key in ("episode_index", "frame_index")}
    num = len(keys["frame_index"])
    table = {
        **keys,
        "value": np.asarray(value, np.float32),
        "value_std": np.zeros(num, np.float32) if std is None else np.asarray(std, np.float32),
        "relative_advantage": [None] * num if relative is None else list(relative),
    }
    return publish(root, "merge_values", Kind.VALUES, tables={"values": table})


def make_targets(root: str, dataset: Manifest, **config: Any) -> Manifest:
    """Run label_returns."""
    return execute("label_returns", config, {"dataset": dataset.uri}, root)


def label(
    root: str, dataset: Manifest, *, targets: Manifest | None = None, values: Manifest | None = None, **config: Any
) -> Manifest:
    """Run label_advantage."""
    given = {"dataset": dataset, "targets": targets, "values": values}
    return execute("label_advantage", config, {name: made.uri for name, made in given.items() if made}, root)


def column(labels: Manifest, name: str) -> list[Any]:
    """Return a column of the labels table."""
    return list(labels.table("labels").column(name).to_pylist())


def noisy_values(dataset: Manifest, targets: Manifest, *, noise: float, seed: int = 0) -> np.ndarray:
    """Return the targets with noise on them: a value model that is right on average."""
    target = targets.table("targets").column("value_target").to_numpy()
    rng = np.random.default_rng(seed)
    return (target + rng.normal(0, noise, size=Dataset.open(dataset).num_frames)).astype(np.float32)
