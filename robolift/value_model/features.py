"""Image features by frame, in a Parquet file whose bytes don't depend on how it was put together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from robolift import schema, storage
from robolift.errors import DataError
from robolift.table_files import RowGroups

FEATURES_FILE = "features.parquet"
ROW_GROUP_ROWS = 8192


def features_schema(num_features: int) -> pa.Schema:
    """Return the keys and ``features``, a list of ``num_features`` float32."""
    keys = [pa.field(name, pa.int64(), nullable=False) for name in schema.KEYS]
    vector = pa.list_(pa.field("element", pa.float32(), nullable=False), num_features)
    return pa.schema([*keys, pa.field("features", vector, nullable=False)])


class FeatureWriter:
    """Writes features as they come, always in row groups of the same size.

    Memory and bytes depend on the row group and the rows, never on the pieces they arrive in.
    """

    def __init__(self, path: Path, num_features: int) -> None:
        self.schema = features_schema(num_features)
        # Random floats: a dictionary would only cost time.
        self._groups = RowGroups(
            path, self.schema, ROW_GROUP_ROWS, compression="zstd", use_dictionary=list(schema.KEYS)
        )

    def add(self, table: pa.Table) -> None:
        """Append rows; the table has the file's schema."""
        self._groups.add(table)

    def add_arrays(self, episode_index: np.ndarray, frame_index: np.ndarray, features: np.ndarray) -> None:
        """Append rows given as (B,) int64, (B,) int64 and (B, F) float32."""
        flat = pa.array(np.ascontiguousarray(features).reshape(-1), type=pa.float32())
        vector = pa.FixedSizeListArray.from_arrays(flat, type=self.schema.field("features").type)
        columns = [pa.array(episode_index), pa.array(frame_index), vector]
        self.add(pa.table(columns, schema=self.schema))

    def close(self) -> None:
        """Write what is left and finish the file."""
        self._groups.close()


def iterate(uri: str) -> Iterator[pa.Table]:
    """Yield the row groups of a feature file, one at a time in memory."""
    with storage.open_file(uri) as file:
        parquet = pq.ParquetFile(file)
        for group in range(parquet.num_row_groups):
            yield parquet.read_row_group(group)


def num_features(uri: str) -> int:
    """Return the length of the vectors in a feature file."""
    with storage.open_file(uri) as file:
        vector = pq.read_schema(file).field("features").type
        return int(vector.list_size)


def merge(uris: Sequence[str], path: Path) -> int:
    """Write the feature files one after the other, as if they had been written in one go; returns the rows.

    Raises:
        DataError: If the vectors differ in length.
    """
    lengths = {uri: num_features(uri) for uri in uris}
    if len(set(lengths.values())) > 1:
        raise DataError("feature files differ in the length of their vectors", where=str(lengths))
    rows = 0
    writer = FeatureWriter(path, next(iter(lengths.values())))
    for uri in uris:
        for table in iterate(uri):
            writer.add(table)
            rows += table.num_rows
    writer.close()
    return rows
