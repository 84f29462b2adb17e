"""The tables of features: one row a clip, one row a sampled frame, and why a number is not known.

* ``features.parquet``: ``clip_id``, a float64 column for each scalar, ``embedding`` (mean over the sampled frames).
* ``frames.parquet``: ``clip_id``, ``frame``, ``time_s``, ``embedding``, ``hand_x``, ``hand_y``, ``flow_x``, ``flow_y``.
* ``missing.parquet``: ``clip_id``, ``feature``, ``reason``, a row for each null scalar.

All are sorted by clip, so what a clip's rows say and where they stand does not depend on how the work was cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from robolift import schema, storage
from robolift.clips.measuring import Measured

FEATURES, FRAMES, MISSING = "features", "frames", "missing"
TABLES = (FEATURES, FRAMES, MISSING)
FACTS_FILE = "features.json"

CLIP_ID = pa.field("clip_id", pa.string(), nullable=False)
EMBEDDING = pa.field("embedding", pa.list_(pa.float32()))
TRACKS = ("hand_x", "hand_y", "flow_x", "flow_y")
FRAMES_SCHEMA = pa.schema(
    [
        CLIP_ID,
        pa.field("frame", pa.int32(), nullable=False),
        pa.field("time_s", pa.float64(), nullable=False),
        EMBEDDING,
        *(pa.field(name, pa.float64()) for name in TRACKS),
    ]
)
MISSING_SCHEMA = pa.schema(
    [CLIP_ID, pa.field("feature", pa.string(), nullable=False), pa.field("reason", pa.string(), nullable=False)]
)


def features_schema(scalars: Sequence[str]) -> pa.Schema:
    """Return the schema of ``features.parquet`` with these scalars."""
    return pa.schema([CLIP_ID, *(pa.field(name, pa.float64()) for name in scalars), EMBEDDING])


def build(measured: Iterable[Measured], scalars: Sequence[str]) -> dict[str, pa.Table]:
    """Return the three tables of measured clips, which come sorted by name.

    Args:
        measured: The clips.
        scalars: Scalar columns, in order.
    """
    rows, missing, frames = [], [], []
    for clip in measured:
        embedding = clip.tracks.get("embedding")
        mean = None if embedding is None else embedding.mean(axis=0, dtype=np.float64).astype(np.float32)
        name = clip.clip.clip_id
        rows.append({"clip_id": name, **{s: clip.scalars.get(s) for s in scalars}, "embedding": mean})
        missing += [{"clip_id": name, "feature": s, "reason": clip.missing[s]} for s in scalars if s in clip.missing]
        frames.append(_frames(clip))
    return {
        FEATURES: pa.Table.from_pylist(rows, schema=features_schema(scalars)),
        FRAMES: pa.concat_tables([FRAMES_SCHEMA.empty_table(), *frames]).combine_chunks(),
        MISSING: pa.Table.from_pylist(missing, schema=MISSING_SCHEMA),
    }


def _frames(clip: Measured) -> pa.Table:
    sampled = np.array(clip.clip.sampled, np.int32)
    embedding = clip.tracks.get("embedding")
    columns = [
        pa.array([clip.clip.clip_id] * len(sampled), pa.string()),
        pa.array(sampled),
        pa.array(sampled / clip.clip.fps),
        pa.nulls(len(sampled), EMBEDDING.type) if embedding is None else pa.array(list(embedding), EMBEDDING.type),
    ]
    for name in TRACKS:
        track = clip.tracks.get(name, np.full(len(sampled), np.nan))
        columns.append(pa.array(track, pa.float64(), from_pandas=True))  # NaN, not known, becomes null
    return pa.table(columns, schema=FRAMES_SCHEMA)


def write(folder: Path, tables: dict[str, pa.Table]) -> None:
    """Write the three tables into a local folder."""
    for name in TABLES:
        schema.write_table(folder / f"{name}.parquet", tables[name])


def read(folder_uri: str) -> dict[str, pa.Table]:
    """Read the three tables of an output folder.

    Raises:
        DataError: If one is missing or unreadable.
    """
    return {name: schema.read_parquet(storage.join(folder_uri, f"{name}.parquet")) for name in TABLES}


def merge(parts: Sequence[dict[str, pa.Table]]) -> dict[str, pa.Table]:
    """Return the tables of all parts as one, sorted; no clip stands in two parts."""
    keys = {FEATURES: ["clip_id"], FRAMES: ["clip_id", "frame"], MISSING: ["clip_id", "feature"]}
    return {
        name: pa.concat_tables([part[name] for part in parts])
        .sort_by([(key, "ascending") for key in keys[name]])
        .combine_chunks()
        for name in TABLES
    }
