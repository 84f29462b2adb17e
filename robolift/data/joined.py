"""Columns that are joined to the frames of a dataset: made once, kept in a file, and read as often as needed."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa


class JoinedColumns:
    """Arrays of scalars by name, a row for each frame, in blocks of whole episodes; memory holds one block.

    The file has no name from the beginning, so that nothing is left of it however the process ends.

    Attributes:
        types: Arrow type of each column.
    """

    def __init__(self, blocks: Iterable[Mapping[str, pa.Array]], folder: Path) -> None:
        """Take the columns over.

        Args:
            blocks: Columns of one block after the other, the same names and types in all; at least one block.
            folder: Folder on the disk that they may take room on.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  (closed with the columns)
        try:
            self.types = self._write(blocks)
        except BaseException:
            self._file.close()
            raise

    def _write(self, blocks: Iterable[Mapping[str, pa.Array]]) -> dict[str, pa.DataType]:
        writer = None
        for block in blocks:
            # Without a column Arrow would not know how many rows there are; none is asked for either.
            batch = pa.RecordBatch.from_pydict(dict(block))
            if writer is None:
                writer = pa.ipc.new_file(pa.PythonFile(self._file, mode="w"), batch.schema)
                types = dict(zip(batch.schema.names, batch.schema.types, strict=True))
            writer.write_batch(batch)
        if writer is None:
            return {}
        writer.close()
        return types

    def blocks(self, names: Sequence[str]) -> Iterator[dict[str, pa.Array]]:
        """Yield these columns of one block after the other; nothing if there are no names."""
        if not names:
            return
        order = list(self.types)
        options = pa.ipc.IpcReadOptions(included_fields=sorted(order.index(name) for name in names), use_threads=False)
        reader = pa.ipc.open_file(pa.PythonFile(self._file, mode="r"), options=options)
        for number in range(reader.num_record_batches):
            batch = reader.get_batch(number)
            yield {name: batch.column(batch.schema.get_field_index(name)) for name in names}

    def close(self) -> None:
        """Give the room back."""
        self._file.close()
