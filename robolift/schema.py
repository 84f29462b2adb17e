"""Every table, column, dtype and artifact kind of the data contract. A change here is a change of SCHEMA_VERSION.

Tables are sidecars: keyed by (episode_index, frame_index), sorted by it, all columns always present. Null means not
known; zero never means missing.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from robolift import storage
from robolift.errors import DataError

SCHEMA_VERSION = "1.0"
ROW_GROUP_ROWS = 1 << 17
BATCH_ROWS = 1 << 15

EPISODE_INDEX = "episode_index"
FRAME_INDEX = "frame_index"
KEYS = (EPISODE_INDEX, FRAME_INDEX)

OUTCOMES = ("success", "failure", "unknown")
EPISODE_KINDS = ("demo", "rollout")
CONTROL_MODES = ("demo", "autonomous", "correcting", "paused")
ADVANTAGE_LABELS = ("positive", "negative", "none")
LABEL_REASONS = ("threshold", "forced_intervention", "demo", "excluded")
REWARD_SOURCES = ("vlm", "human", "heuristic", "none")
"""Who said what a row of the rewards table says; ``none``: nobody, all of it is null."""


class Kind(enum.StrEnum):
    """What an output folder holds; the KFP artifact class of the same name is ``system.<Kind>``."""

    RECORDING = "Recording"  # a raw LeRobot folder, as the simulator or a robot wrote it
    DATASET = "EpisodeDataset"  # validated reference to LeRobot sources, with the episodes and frames tables
    FRAMES = "FrameCache"  # pictures of a dataset, decoded
    TARGETS = "ValueTargets"
    VALUE_CHECKPOINT = "ValueCheckpoint"
    VALUE_SHARD = "ValueShard"
    VALUES = "ValueSet"
    LABELS = "LabelSet"
    LABEL_PLAN = "LabelPlan"  # what a labeller will be asked, before it is asked
    REWARD_SHARD = "RewardShard"
    REWARDS = "RewardSet"
    QUALITY = "LabelQuality"
    EXPORT = "ExportedDataset"
    VIDEOS = "VideoSet"
    CLIPS = "ClipSet"
    FEATURE_SHARD = "FeatureShard"
    FEATURES = "FeatureSet"
    PAIRS = "PairSet"
    PREFERENCES = "PreferenceSet"
    REWARD_MODEL = "RewardModel"
    SCORES = "ClipScores"
    DOWNSTREAM = "DownstreamShard"
    VALIDATION = "RewardValidation"
    NORM_STATS = "NormStats"
    POLICY = "PolicyCheckpoint"
    EVALUATION = "Evaluation"
    REPORT = "RunCard"


def _keyed(*fields: pa.Field) -> pa.Schema:
    keys = [pa.field(name, pa.int64(), nullable=False) for name in KEYS]
    return pa.schema([*keys, *fields])


EPISODES = pa.schema(
    [
        pa.field("episode_index", pa.int64(), nullable=False),
        pa.field("length", pa.int32(), nullable=False),
        pa.field("task", pa.string(), nullable=False),
        pa.field("outcome", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("iteration", pa.int32(), nullable=False),
    ]
)
FRAMES = _keyed(
    pa.field("timestamp", pa.float32(), nullable=False),
    pa.field("control_mode", pa.string(), nullable=False),
)
TARGETS = _keyed(
    pa.field("value_target", pa.float32(), nullable=False),
    pa.field("reward", pa.float32(), nullable=False),
)
VALUES = _keyed(
    pa.field("value", pa.float32(), nullable=False),
    pa.field("value_std", pa.float32(), nullable=False),
    pa.field("relative_advantage", pa.float32()),
)
LABELS = _keyed(
    pa.field("advantage", pa.float32()),
    pa.field("valid", pa.bool_(), nullable=False),
    pa.field("advantage_label", pa.string(), nullable=False),
    pa.field("slice", pa.int16()),
    pa.field("reason", pa.string(), nullable=False),
    pa.field("group", pa.string(), nullable=False),
    pa.field("weight", pa.float32(), nullable=False),
    pa.field("prompt_index", pa.int32(), nullable=False),
)
REWARDS = _keyed(
    pa.field("progress", pa.float32()),
    pa.field("success_prob", pa.float32()),
    pa.field("tri", pa.int8()),
    pa.field("reward", pa.float32()),
    pa.field("stage", pa.int16()),
    pa.field("anchor", pa.bool_(), nullable=False),
    pa.field("confidence", pa.float32()),
    pa.field("source", pa.string(), nullable=False),
)

TABLES: dict[str, pa.Schema] = {
    "episodes": EPISODES,
    "frames": FRAMES,
    "targets": TARGETS,
    "values": VALUES,
    "labels": LABELS,
    "rewards": REWARDS,
}


def as_table(name: str, columns: Mapping[str, Any] | pa.Table) -> pa.Table:
    """Build table ``name`` with exactly its columns and dtypes, checked for order and uniqueness of the keys.

    Args:
        name: A key of TABLES.
        columns: One array per column, where NaN in a float column is kept and None becomes null; or a table.

    Raises:
        DataError: If a column is missing or unknown, a value is null where none may be, or the keys are not sorted
            and unique.
    """
    schema = TABLES[name]
    given = columns.column_names if isinstance(columns, pa.Table) else columns
    wrong = set(schema.names) ^ set(given)
    if wrong:
        raise DataError(f"table {name} has wrong columns: {sorted(wrong)}", expected=", ".join(schema.names))
    if isinstance(columns, pa.Table):
        check_table(name, columns, where=name)
        # The cast brings column order, nullability and metadata to the contract's, so equal rows are equal bytes.
        return columns.select(schema.names).cast(schema)
    arrays = {field.name: pa.array(columns[field.name], type=field.type) for field in schema}
    table = pa.table(arrays, schema=schema)
    check_table(name, table, where=name)
    return table


def check_table(name: str, table: pa.Table, *, where: str, columns: Sequence[str] | None = None) -> None:
    """Check dtypes, nulls and key order of a table of the contract.

    Args:
        name: A key of TABLES.
        table: The table.
        where: What it is, for the error.
        columns: Which of the contract's columns it must have; all by default. Without all keys no order is checked.

    Raises:
        DataError: Naming the column and what was expected of it.
    """
    schema = TABLES[name]
    for field in schema if columns is None else [schema.field(column) for column in columns]:
        if field.name not in table.column_names:
            raise DataError(f"column {field.name} is missing", where=where, expected=str(schema))
        column = table.column(field.name)
        if column.type != field.type:
            raise DataError(f"column {field.name} is {column.type}", where=where, expected=str(field.type))
        if not field.nullable and column.null_count:
            raise DataError(
                f"column {field.name} has {column.null_count} nulls",
                where=where,
                expected="a value in each row",
            )
    keys = [key for key in KEYS if key in schema.names]
    if set(keys) <= set(table.column_names):
        check_order(keys, [table.column(key).to_numpy() for key in keys], where=where)


def check_order(keys: Sequence[str], columns: Sequence[np.ndarray[Any, Any]], *, where: str) -> None:
    """Check that rows ascend by their keys, and none stands twice.

    Args:
        keys: Names of the key columns, the first one weighing most.
        columns: (rows,) for each of them.
        where: The table, for the error.

    Raises:
        DataError: If they don't.
    """
    steps = max(len(columns[0]) - 1, 0)
    # By step from row to row: a step back in a key is allowed only where a key before it stepped on.
    onward, same = np.zeros(steps, bool), np.ones(steps, bool)
    for column in columns:
        if (same & (column[1:] < column[:-1])).any():
            raise DataError(f"rows are not sorted by {', '.join(keys)}", where=where, expected="ascending keys")
        onward |= same & (column[1:] > column[:-1])
        same = ~onward
    if same.any():
        raise DataError(f"a key ({', '.join(keys)}) stands twice", where=where, expected="one row a frame")


def write_table(path: Path, table: pa.Table) -> None:
    """Write a Parquet file whose bytes depend only on the table."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=ROW_GROUP_ROWS, **parquet_options(table.schema))


def parquet_options(columns: pa.Schema) -> dict[str, Any]:
    """Return how tables of our own are written.

    Measured numbers hardly repeat: in a dictionary they take a third more room and time than as they are.
    """
    repeated = [field.name for field in columns if not pa.types.is_floating(field.type)]
    return {"compression": "zstd", "store_schema": True, "use_dictionary": repeated}


def read_table(folder_uri: str, name: str) -> pa.Table:
    """Read ``<folder>/<name>.parquet`` and check it against the contract.

    Raises:
        DataError: If it is missing, unreadable or not as the contract says.
    """
    uri = storage.join(folder_uri, f"{name}.parquet")
    table = read_parquet(uri)
    check_table(name, table, where=uri)
    return cast("pa.Table", table.select(TABLES[name].names))


def read_parquet(uri: str, columns: list[str] | None = None) -> pa.Table:
    """Read one Parquet file from any store.

    Raises:
        DataError: If it is missing or not readable as Parquet.
    """
    with storage.open_file(uri) as file, intact_parquet(uri):
        # Not by pq.read_table: it imports pyarrow.dataset, 13 MB and a good part of a stage's start.
        table = pq.ParquetFile(file, pre_buffer=True).read(columns=columns)
        if missing := set(columns or ()).difference(table.column_names):
            raise pa.ArrowInvalid(f"no column {', '.join(sorted(missing))}")
        return table if columns is None else table.select(columns)


@contextmanager
def parquet_file(uri: str) -> Iterator[pq.ParquetFile]:
    """Open one Parquet file from any store to be read by row groups, of which each is one request.

    Raises:
        DataError: If it is missing or, here or when it is read, not readable as Parquet.
    """
    source = storage.open_for_arrow(uri)
    try:
        with intact_parquet(uri), pq.ParquetFile(source, pre_buffer=not isinstance(source, str)) as file:
            yield file
    finally:
        if not isinstance(source, str):  # which Arrow leaves open
            source.close()


def read_batches(uri: str, wanted: Callable[[str], bool] | None = None) -> Iterator[pa.Table]:
    """Yield the rows of one Parquet file from any store, in order and about BATCH_ROWS at once.

    The first table has the columns and no rows. From a store that many rows are fetched with one request.

    Args:
        uri: The file.
        wanted: Tells of the name of a column whether to read it; all are by default.

    Raises:
        DataError: If it is missing or not readable as Parquet.
    """
    with parquet_file(uri) as file:
        schema = file.schema_arrow
        columns = None if wanted is None else list(filter(wanted, schema.names))
        yield (schema if columns is None else pa.schema([schema.field(name) for name in columns])).empty_table()
        ends = np.cumsum([file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)])
        for groups in np.split(np.arange(len(ends)), np.flatnonzero(np.diff(ends // BATCH_ROWS)) + 1):
            for batch in file.iter_batches(BATCH_ROWS, row_groups=groups.tolist(), columns=columns, use_threads=False):
                yield pa.Table.from_batches([batch])


@contextmanager
def intact_parquet(uri: str, *, mend: str = "write or copy the file again") -> Iterator[None]:
    """Turn Arrow's complaints about the bytes of a Parquet file into a :class:`DataError`.

    Raises:
        DataError: If the file is damaged.
    """
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        # Arrow's own OSError is bare. One with a number or of a subclass is the store's or the network's: it says
        # nothing about the bytes, and trying again may help.
        if isinstance(error, OSError) and (type(error) is not OSError or error.errno is not None):
            raise
        raise DataError(f"not a readable Parquet file: {error}", where=uri, mend=mend) from error
