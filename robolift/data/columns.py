"""Arrow columns as NumPy arrays, whichever of LeRobot's list types holds the vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from robolift.errors import DataError


def is_list(kind: pa.DataType) -> bool:
    """Tell whether a column of this type holds a list in each row."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def is_text(kind: pa.DataType) -> bool:
    """Tell whether a column of this type holds strings."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def scalar_type(kind: pa.DataType) -> pa.DataType:
    """Return the type of the numbers inside nested lists, or ``kind`` itself."""
    while is_list(kind):
        kind = kind.value_type
    return kind


def to_numpy(column: pa.ChunkedArray, *, where: str = "") -> np.ndarray[Any, Any]:
    """Return a column with its own dtype: (rows,), or (rows, d) with nested lists flattened.

    Args:
        column: Without nulls.
        where: What the column is, for the error.

    Raises:
        DataError: If the rows of a list column differ in length.
    """
    array = column.combine_chunks()
    rows, vectors = len(array), is_list(array.type)
    while is_list(array.type):
        array = array.flatten()
    values = np.asarray(array.to_numpy(zero_copy_only=False))
    if not vectors:
        return values
    if rows and len(values) % rows:
        raise DataError("lists of different lengths in one column", where=where, expected="one length in all rows")
    return values.reshape(rows, len(values) // rows if rows else 0)


def to_model(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return ``values`` as models take them: float32 for real numbers, int64 for integers and booleans, object else."""
    if np.issubdtype(values.dtype, np.floating):
        return values.astype(np.float32)
    if np.issubdtype(values.dtype, np.integer) or values.dtype == np.bool_:
        return values.astype(np.int64)
    return values.astype(object)
