"""Tables of videos, annotated segments and clips: their columns, types and sorted keys."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from robolift import schema, storage
from robolift.errors import DataError


def _field(name: str, kind: pa.DataType, *, optional: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=optional)


_TEXTS = [_field(name, pa.string(), optional=True) for name in ("narration", "verb", "noun", "action")]

VIDEOS = pa.schema(
    [
        _field("video_id", pa.string()),
        _field("source", pa.string()),
        _field("uri", pa.string()),
        _field("fps", pa.float64()),
        _field("num_frames", pa.int64()),
        _field("duration_s", pa.float64()),
        _field("width", pa.int32()),
        _field("height", pa.int32()),
        _field("rotation", pa.int32()),
        _field("codec", pa.string()),
        _field("start_s", pa.float64()),
        _field("participant_id", pa.string(), optional=True),
        _field("license", pa.string()),
        _field("etag", pa.string()),
        _field("bytes", pa.int64()),
    ]
)
SEGMENTS = pa.schema(
    [
        _field("segment_id", pa.string()),
        _field("video_id", pa.string()),
        _field("start_s", pa.float64()),
        _field("stop_s", pa.float64()),
        *_TEXTS,
    ]
)
CLIPS = pa.schema(
    [
        _field("clip_id", pa.string()),
        _field("source", pa.string()),
        _field("video_id", pa.string()),
        _field("start_frame", pa.int64()),
        _field("stop_frame", pa.int64()),
        _field("fps", pa.float64()),
        _field("duration", pa.float64()),
        _field("start_s", pa.float64()),
        _field("kind", pa.string()),
        *_TEXTS,
        _field("participant_id", pa.string(), optional=True),
        _field("license", pa.string()),
        _field("file", pa.string()),
        _field("num_frames", pa.int32()),
    ]
)
TABLES = {"videos": VIDEOS, "segments": SEGMENTS, "clips": CLIPS}


def write_rows(folder: Path, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write ``<folder>/<name>.parquet``, sorted by its first column, with exactly the columns of TABLES."""
    expected = TABLES[name]
    ordered = sorted(rows, key=lambda row: str(row[expected.names[0]]))
    schema.write_table(folder / f"{name}.parquet", pa.Table.from_pylist(ordered, schema=expected))


def read_rows(folder_uri: str, name: str) -> list[dict[str, Any]]:
    """Read ``<folder>/<name>.parquet`` as rows.

    Raises:
        DataError: If it is missing, unreadable, or lacks a column.
    """
    uri = storage.join(folder_uri, f"{name}.parquet")
    table = schema.read_parquet(uri)
    missing = [column for column in TABLES[name].names if column not in table.column_names]
    if missing:
        raise DataError(f"columns {', '.join(missing)} are missing", where=uri, expected=", ".join(TABLES[name].names))
    rows: list[dict[str, Any]] = table.select(TABLES[name].names).to_pylist()
    return rows


def relative(uri: str, root: str) -> str:
    """Return an address below ``root`` relative to an output's folder, so that outputs can be moved together."""
    base = storage.normalize(root).rstrip("/") + "/"
    address = storage.normalize(uri)
    return f"../../{address.removeprefix(base)}" if address.startswith(base) else address


def resolve(uri: str, folder: str) -> str:
    """Return the address that :func:`relative` wrote into the output at ``folder``."""
    if "://" in uri:
        return uri
    scheme, _, path = storage.normalize(folder).partition("://")
    return f"{scheme}://{posixpath.normpath(posixpath.join(path, uri))}"
