"""Tables of the contract in pieces: written as rows come, read by row group, so that memory follows neither length.

A file written in pieces has the bytes of :func:`robolift.schema.write_table` of all its rows, wherever they were cut.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from robolift import schema, storage
from robolift.errors import UsageError


def episode_blocks(starts: np.ndarray[Any, Any], max_frames: int = schema.ROW_GROUP_ROWS) -> Iterator[range]:
    """Yield consecutive ranges of whole episodes, as long as fits.

    Args:
        starts: (E + 1,) row offsets of the episodes.
        max_frames: Most frames in a range; an episode that is longer has one of its own.
    """
    first, last = 0, len(starts) - 1
    while first < last:
        fits = int(np.searchsorted(starts, starts[first] + max_frames, side="right")) - 1
        end = max(fits, first + 1)
        yield range(first, end)
        first = end


class _KeyOrder:
    """Checks that the keys of each piece of a table lie after those of the piece before."""

    def __init__(self, name: str, where: str) -> None:
        self._keys = [key for key in schema.KEYS if key in schema.TABLES[name].names]
        self._where = where
        self._last: tuple[int, ...] = ()

    def check(self, table: pa.Table) -> None:
        if not table.num_rows or not set(self._keys) <= set(table.column_names):
            return
        first, last = (tuple(table.column(key)[row].as_py() for key in self._keys) for row in (0, -1))
        if self._last:
            schema.check_order(
                self._keys, [np.array(pair) for pair in zip(self._last, first, strict=True)], where=self._where
            )
        self._last = last


class RowGroups:
    """Writes a Parquet file as its rows come, in row groups of one size, whatever the pieces.

    Attributes:
        num_rows: How many rows were added.
    """

    def __init__(self, path: Path, columns: pa.Schema, rows: int, **options: Any) -> None:
        """Start the file.

        Args:
            path: Where to.
            columns: The schema of all rows.
            rows: Rows of a row group.
            **options: Of ``pyarrow.parquet.ParquetWriter``.
        """
        self._writer = pq.ParquetWriter(path, columns, **options)
        self._rows = rows
        self._waiting = [columns.empty_table()]
        self._num_waiting = 0
        self.num_rows = 0

    def add(self, table: pa.Table) -> None:
        """Append rows of the file's schema, however many."""
        self._waiting.append(table)
        self._num_waiting += table.num_rows
        self.num_rows += table.num_rows
        while self._num_waiting >= self._rows:
            self._flush(self._rows)

    def _flush(self, rows: int) -> None:
        table = pa.concat_tables(self._waiting)
        self._writer.write_table(table.slice(0, rows).combine_chunks(), row_group_size=self._rows)
        self._waiting = [table.slice(rows)]
        self._num_waiting -= rows

    def close(self, *, if_empty: bool = False) -> None:
        """Write what is left and finish the file.

        Args:
            if_empty: Whether a file without rows has one empty row group, rather than none.
        """
        if self._num_waiting or (if_empty and not self.num_rows):
            self._flush(self._num_waiting)
        self._writer.close()

    def abandon(self) -> None:
        """Close the file without what is left."""
        self._writer.close()


class TableWriter:
    """Writes one table of the contract as its rows come; left by an error, it removes the file."""

    def __init__(self, path: Path, name: str) -> None:
        """Start the file.

        Args:
            path: Where to; its folder is made.
            name: A key of :data:`robolift.schema.TABLES`.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._name = name
        self._order = _KeyOrder(name, name)
        columns = schema.TABLES[name]
        self._groups = RowGroups(path, columns, schema.ROW_GROUP_ROWS, **schema.parquet_options(columns))

    @property
    def num_rows(self) -> int:
        """How many rows were added."""
        return self._groups.num_rows

    def add(self, columns: Mapping[str, Any] | pa.Table) -> None:
        """Append rows, however many.

        Args:
            columns: As :func:`robolift.schema.as_table` takes them.

        Raises:
            DataError: If they are not as the contract says, or don't lie after the rows before.
        """
        table = schema.as_table(self._name, columns)
        self._order.check(table)
        self._groups.add(table)

    def close(self) -> None:
        """Write what is left and finish the file."""
        self._groups.close(if_empty=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self._groups.abandon()
            self._path.unlink(missing_ok=True)


class TableReader:
    """Reads rows of one table of the contract from any store, one row group in memory besides those asked for.

    From a store only the row groups and columns that are asked for are fetched, a request for each row group.

    Attributes:
        uri: The file.
        num_rows: Number of rows.
    """

    def __init__(self, folder_uri: str, name: str, columns: Sequence[str] | None = None) -> None:
        """Open ``<folder_uri>/<name>.parquet``.

        Args:
            folder_uri: Folder of the output that holds it.
            name: A key of :data:`robolift.schema.TABLES`.
            columns: Which columns to read; all by default.

        Raises:
            DataError: If it is missing, unreadable or lacks a column of the contract.
        """
        self.uri = storage.join(folder_uri, f"{name}.parquet")
        self._name = name
        self._columns = list(schema.TABLES[name].names if columns is None else columns)
        self._order = _KeyOrder(name, self.uri)
        self._file = storage.open_for_arrow(self.uri)
        try:
            with schema.intact_parquet(self.uri):
                self._parquet = pq.ParquetFile(self._file, pre_buffer=not isinstance(self._file, str))
            schema.check_table(name, self._parquet.schema_arrow.empty_table(), where=self.uri)
        except BaseException:
            self._close_file()
            raise
        facts = self._parquet.metadata
        rows = [facts.row_group(group).num_rows for group in range(facts.num_row_groups)]
        self._edges = np.concatenate([[0], np.cumsum(rows, dtype=np.int64)])
        self.num_rows = int(self._edges[-1])
        self._position = 0
        self._group: tuple[int, pa.Table] = (-1, schema.TABLES[name].empty_table().select(self._columns))

    def read(self, first: int, end: int) -> pa.Table:
        """Return rows ``first`` to ``end - 1``; they lie after all rows read before.

        Raises:
            UsageError: If they don't, or the table has no such rows.
            DataError: If the file is damaged, or its rows are not as the contract says.
        """
        if not self._position <= first <= end <= self.num_rows:
            raise UsageError(
                f"rows {first} to {end} of {self.uri} can't be read: it is at row {self._position} of {self.num_rows} "
                "and reads onwards only"
            )
        self._position = end
        parts = []
        while first < end:
            group = int(np.searchsorted(self._edges, first, side="right")) - 1
            start, stop = int(self._edges[group]), min(end, int(self._edges[group + 1]))
            parts.append(self._load(group).slice(first - start, stop - first))
            first = stop
        return pa.concat_tables(parts) if parts else self._group[1].slice(0, 0)

    def blocks(self, rows: int = schema.ROW_GROUP_ROWS) -> Iterator[tuple[int, pa.Table]]:
        """Yield (number of the first row, rows) of all rows not read yet, at most ``rows`` at once.

        Raises:
            DataError: As :meth:`read`.
        """
        for first in range(self._position, self.num_rows, rows):
            yield first, self.read(first, min(first + rows, self.num_rows))

    def _load(self, group: int) -> pa.Table:
        if self._group[0] != group:
            with schema.intact_parquet(self.uri):
                table = self._parquet.read_row_group(group, columns=self._columns, use_threads=False)
            table = table.select(self._columns)
            schema.check_table(self._name, table, where=self.uri, columns=self._columns)
            self._order.check(table)
            self._group = (group, table)
        return self._group[1]

    def close(self) -> None:
        """Close the file."""
        self._parquet.close()
        self._close_file()

    def _close_file(self) -> None:
        if not isinstance(self._file, str):
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
