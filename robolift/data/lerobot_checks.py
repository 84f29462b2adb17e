"""Checks on the rows of a LeRobot data file, and the shapes readers get them in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from robolift.data import lerobot_format as fmt
from robolift.data.video import TOLERANCE_FRAMES
from robolift.errors import DataError


def _leaf(kind: pa.DataType) -> pa.DataType:
    """Return the type of a column's numbers: lists and extension types stripped."""
    while True:
        if isinstance(kind, pa.BaseExtensionType):
            kind = kind.storage_type
        elif pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
            kind = kind.value_type
        else:
            return pa.string() if pa.types.is_large_string(kind) else kind


def check_columns(schema: pa.Schema, features: Mapping[str, Mapping[str, Any]], *, where: str) -> None:
    """Check that a data file has exactly the declared columns, with the declared dtypes.

    Raises:
        DataError: Naming the columns that are undeclared, absent or of another dtype.
    """
    declared = {name for name, feature in features.items() if feature["dtype"] != "video"}
    undeclared = sorted(set(schema.names) - declared)
    if undeclared:
        raise DataError(
            f"columns not declared in info.json: {', '.join(undeclared)}",
            where=where,
            expected="every Parquet column among the features; LeRobot v3.0 refuses the dataset otherwise",
            mend="declare them in meta/info.json with dtype and shape, or drop them",
        )
    absent = sorted(declared - set(schema.names))
    if absent:
        raise DataError(
            f"columns declared in info.json are absent: {', '.join(absent)}",
            where=where,
            expected=", ".join(sorted(declared)),
            mend="write the file again with them, or take them out of meta/info.json",
        )
    for name in sorted(declared):
        dtype = features[name]["dtype"]
        found = _leaf(schema.field(name).type)
        if dtype != "image" and found != fmt.ARROW_TYPES[dtype]:
            raise DataError(
                f"column {name} holds {found}, declared is {dtype}",
                where=where,
                expected=dtype,
                mend="cast the column, or correct its dtype in meta/info.json",
            )


def check_rows(table: pa.Table, *, episode: int, length: int, fps: float, num_tasks: int, where: str) -> None:
    """Check one episode's rows.

    Args:
        table: Its rows with at least the five standard columns, in file order.
        episode: Its number.
        length: How many rows the meta folder says it has.
        fps: Frames a second.
        num_tasks: Number of tasks in the dataset.
        where: The file, for the error.

    Raises:
        DataError: If rows are missing, ``frame_index`` is not 0, 1, 2, ..., a timestamp is not frame_index / fps, or a
            task_index points nowhere.
    """
    place = f"{where}, episode {episode}"
    if len(table) != length:
        raise DataError(
            f"{len(table)} rows", where=place, expected=f"{length}, the episode's length in the meta folder"
        )
    for name in fmt.STANDARD_COLUMNS:
        if table.column(name).null_count:
            raise DataError(f"column {name} has nulls", where=place, expected="a number in each row")
    frames = table.column("frame_index").to_numpy()
    wrong = np.flatnonzero(frames != np.arange(length))
    if len(wrong):
        raise DataError(
            f"gap in frame_index: row {wrong[0]} has {frames[wrong[0]]}",
            where=place,
            expected=f"0..{length - 1} in order, each once",
            mend="record or export the episode again, with its lost frames or without the episode",
        )
    times = table.column("timestamp").to_numpy()
    off = np.flatnonzero(~(np.abs(times - frames / fps) <= TOLERANCE_FRAMES / fps))
    if len(off):
        raise DataError(
            f"timestamp of frame {off[0]} is {times[off[0]]:.4f} s",
            where=place,
            expected=f"frame_index / fps = {off[0] / fps:.4f} s",
            mend="write timestamps as frame_index / fps; frames are found in the video by them",
        )
    tasks = table.column("task_index").to_numpy()
    unknown = np.flatnonzero((tasks < 0) | (tasks >= num_tasks))
    if len(unknown):
        raise DataError(
            f"task_index of frame {unknown[0]} is {tasks[unknown[0]]}",
            where=place,
            expected=f"0..{num_tasks - 1}",
            mend="add the task to the meta folder's tasks",
        )


def canonical(column: pa.ChunkedArray, feature: Mapping[str, Any], *, where: str) -> pa.Array:
    """Return a column as LeRobot's newest writer stores it: a scalar for shape (1,), a fixed-size list for (d,).

    kai0's converter stores a state of 14 numbers as [[...]], others use lists of variable size; both are flattened.
    Columns of more dimensions and images stay as they are.

    Raises:
        DataError: If a row is null or has another number of entries than declared.
    """
    array = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    if isinstance(array.type, pa.BaseExtensionType):
        array = array.storage
    if feature["dtype"] == "image" or len(feature["shape"]) > 1:
        return array
    width = int(feature["shape"][0])
    rows = len(array)
    nulls = array.null_count
    while pa.types.is_list(array.type) or pa.types.is_large_list(array.type) or pa.types.is_fixed_size_list(array.type):
        sizes = np.diff(array.offsets.to_numpy()) if not pa.types.is_fixed_size_list(array.type) else None
        array = array.flatten()
        nulls += array.null_count
        inner = fmt.ARROW_TYPES[feature["dtype"]] == array.type
        if sizes is not None and inner and not nulls and rows and (sizes != width).any():
            raise DataError(
                f"row {np.flatnonzero(sizes != width)[0]} has another width", where=where, expected=f"{width}"
            )
    if nulls:
        raise DataError(f"{nulls} nulls", where=where, expected="a value in each row", mend="fill or drop the rows")
    if len(array) != rows * width:
        raise DataError(f"{len(array)} entries in {rows} rows", where=where, expected=f"{width} a row")
    if feature["dtype"] == "string":
        return array.cast(pa.string())
    return array if width == 1 else pa.FixedSizeListArray.from_arrays(array, width)
