"""Whether a table has the frames of a dataset: one row for each, in order."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from robolift import schema
from robolift.data.dataset import Dataset
from robolift.errors import DataError
from robolift.table_files import TableReader


def check_keys(
    table: pa.Table,
    dataset: Dataset,
    *,
    where: str,
    first: int = 0,
    end: int | None = None,
    num_rows: int | None = None,
    mend: str = "make the table again from this dataset",
) -> None:
    """Check that a table has exactly the dataset's frames, or a block of it those of the same rows.

    Args:
        table: The table, or its rows from ``first`` on.
        dataset: The dataset.
        where: The file.
        first: First row of the block.
        end: Row after its last; the dataset's last by default.
        num_rows: Rows of the whole table; those of ``table`` by default.
        mend: What the error says to do.

    Raises:
        DataError: Naming the first frame that one of them lacks.
    """
    keys = dataset.keys(first, dataset.num_frames if end is None else end)
    ours, theirs = ([source[key] for key in schema.KEYS] for source in (keys, _arrays(table)))
    if all(map(np.array_equal, ours, theirs)):
        return
    shared = min(len(ours[0]), len(theirs[0]))
    differs = np.any([a[:shared] != b[:shared] for a, b in zip(ours, theirs, strict=True)], axis=0)
    row = int(differs.argmax()) if differs.any() else shared
    episode, frame = (key[row] for key in (ours if len(ours[0]) > row else theirs))
    total = table.num_rows if num_rows is None else num_rows
    raise DataError(
        f"its {total} frames are not the dataset's {dataset.num_frames} frames",
        where=f"{where}, first difference at episode {episode}, frame {frame}",
        expected="one row for each frame of the dataset",
        mend=mend,
    )


def read_frames(reader: TableReader, dataset: Dataset, first: int, end: int) -> pa.Table:
    """Return the rows of the dataset's frames ``first`` to ``end - 1`` of a table that has to have exactly its frames.

    Args:
        reader: The table, with its keys.
        dataset: The dataset.
        first: First row, where the block before ended.
        end: Row after the last; with the dataset's last the table has to end.

    Raises:
        DataError: Naming the first frame that one of them lacks.
    """
    num_rows = reader.num_rows
    rows = reader.read(min(first, num_rows), min(end, num_rows))
    check_keys(rows, dataset, where=reader.uri, first=first, end=end, num_rows=num_rows)
    if end == dataset.num_frames < num_rows:
        check_keys(reader.read(end, end + 1), dataset, where=reader.uri, first=end, num_rows=num_rows)
    return rows


def _arrays(table: pa.Table) -> dict[str, npt.NDArray[np.int64]]:
    return {key: table.column(key).to_numpy() for key in schema.KEYS}
