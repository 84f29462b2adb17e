"""LeRobot's table of progress beside a dataset, which its reward models write and its RA-BC weighting reads.

One row a frame: ``index`` (over the whole dataset), ``episode_index``, ``frame_index`` int64, and ``progress_sparse``
float32 in [0, 1] (SARM may add ``progress_dense``), NaN where not known. The Parquet metadata may name the model that
said so. Matches ``lerobot.rewards.{sarm,robometer,topreward}.compute_rabc_weights``, which write such files, and
``lerobot.rewards.sarm.rabc``, which reads them, of LeRobot 0.6.1 and 0.6.2 (0.4.4 reads them alike).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from robolift import schema
from robolift.data.dataset import Dataset
from robolift.errors import DataError
from robolift.table_files import RowGroups

ROW_GROUP_ROWS = 1 << 20
DEFAULT_FILE = "sarm_progress.parquet"
"""Name under which LeRobot's training looks in the dataset's folder when it is told no other."""
KEYS = ("index", *schema.KEYS)
ROUNDING = 1e-5
"""How far outside [0, 1] a number may lie that a model in float32 meant to be inside."""
PARTIAL_MEND = "let the labeller do the rest, or set allow_partial to take these frames as not labelled"

Head = Literal["sparse", "dense"]
FloatArray = np.ndarray[Any, np.dtype[np.floating[Any]]]


@dataclass(frozen=True, kw_only=True)
class RewardFile:
    """What such a file says about a dataset.

    Attributes:
        progress: (F,) float32 in the order of the dataset's frames, NaN where not known.
        metadata: What the writer left in the Parquet metadata, such as ``reward_model_path`` or ``vlm_name``.
    """

    progress: FloatArray
    metadata: dict[str, str]


def write_rewards(path: Path, dataset: Dataset, progress: Iterable[FloatArray], *, metadata: Mapping[str, str]) -> None:
    """Write the file that LeRobot reads.

    Args:
        path: Local file.
        dataset: Whose frames these are; rows are numbered as its export numbers them.
        progress: (n,) arrays in [0, 1] of all frames in order, NaN where not known: LeRobot gives such frames a weight
            of 1.
        metadata: Goes into the Parquet metadata. ``reward_model_path`` is what LeRobot's own tools load again.
    """
    columns = pa.schema([*((name, pa.int64()) for name in KEYS), ("progress_sparse", pa.float32())], dict(metadata))
    path.parent.mkdir(parents=True, exist_ok=True)
    # Snappy, as LeRobot writes it: what any reader knows.
    groups = RowGroups(path, columns, ROW_GROUP_ROWS, compression="snappy")
    try:
        for some in progress:
            first, end = groups.num_rows, groups.num_rows + len(some)
            numbers = [np.arange(first, end), *dataset.keys(first, end).values(), some.astype(np.float32)]
            groups.add(pa.Table.from_arrays([pa.array(column) for column in numbers], schema=columns))
    except BaseException:
        groups.abandon()
        raise
    groups.close()


def read_rewards(uri: str, dataset: Dataset, *, head: Head, allow_partial: bool) -> RewardFile:
    """Read such a file and check that it speaks of ``dataset``, frame by frame; its rows may lie in any order.

    Args:
        uri: The file, at any address.
        dataset: Whose frames it must have.
        head: Which of SARM's heads; the other models write ``sparse`` only.
        allow_partial: Whether whole episodes may be missing, and progress be NaN or null.

    Raises:
        DataError: If it is no such file, or its rows are not those of the dataset.
    """
    table = schema.read_parquet(uri)
    name = f"progress_{head}"
    keys = {key: _integers(table, key, uri) for key in KEYS}
    progress = _numbers(table, name, uri)
    rows = _rows(keys, dataset, uri)
    _check_complete(rows, dataset, uri, allow_partial=allow_partial)
    outside = np.flatnonzero((progress < -ROUNDING) | (progress > 1 + ROUNDING))
    unknown = np.flatnonzero(np.isnan(progress)) if not allow_partial else outside[:0]
    for found, what, mend in (
        (outside, "is no progress", "have the reward model write progress, not raw scores"),
        (unknown, "is missing", PARTIAL_MEND),
    ):
        if len(found):
            where = f"episode {keys['episode_index'][found[0]]}, frame {keys['frame_index'][found[0]]}"
            raise DataError(
                f"{name} {what} in {len(found)} frames",
                where=f"{uri}, first: {where}: {progress[found[0]]}",
                expected="a number in [0, 1]",
                mend=mend,
            )
    whole = np.full(dataset.num_frames, np.nan, np.float32)
    whole[rows] = np.clip(progress, 0, 1)
    stated = table.schema.metadata or {}
    written = {key.decode(): value.decode() for key, value in stated.items() if key not in (b"pandas", b"ARROW:schema")}
    return RewardFile(progress=whole, metadata=written)


def _column(table: pa.Table, name: str, uri: str) -> pa.ChunkedArray:
    if name not in table.column_names:
        raise DataError(
            f"no column {name} in LeRobot's reward file",
            where=uri,
            expected=f"{', '.join(KEYS)}, and progress_sparse or progress_dense; it has: "
            f"{', '.join(table.column_names) or 'none'}",
            mend="give the file that a reward model of LeRobot wrote, or name its other head",
        )
    return table.column(name)


def _integers(table: pa.Table, name: str, uri: str) -> np.ndarray[Any, np.dtype[np.int64]]:
    column = _column(table, name, uri)
    if not pa.types.is_integer(column.type) or column.null_count:
        raise DataError(
            f"column {name} is {column.type} with {column.null_count} nulls",
            where=uri,
            expected="an int64 in each row",
            mend="have LeRobot write the file again",
        )
    return np.asarray(column.to_numpy(), np.int64)


def _numbers(table: pa.Table, name: str, uri: str) -> FloatArray:
    column = _column(table, name, uri)
    if not pa.types.is_floating(column.type):
        raise DataError(f"column {name} is {column.type}", where=uri, expected="float32")
    return np.asarray(column.to_numpy(), np.float64)


def _rows(keys: Mapping[str, np.ndarray[Any, Any]], dataset: Dataset, uri: str) -> np.ndarray[Any, Any]:
    """Return which frame of the whole each row speaks of."""
    episode, frame, index = keys["episode_index"], keys["frame_index"], keys["index"]
    lengths = np.diff(dataset.starts)
    there = (episode >= 0) & (episode < dataset.num_episodes)
    length = np.where(there, lengths[np.where(there, episode, 0)], 0)
    strange = np.flatnonzero((frame < 0) | (frame >= length))
    if len(strange):
        row = strange[0]
        has = f"{length[row]} frames" if there[row] else "no such episode"
        raise DataError(
            f"{len(strange)} rows speak of frames that the dataset has not",
            where=f"{uri}, first: episode {episode[row]}, frame {frame[row]}, of which the dataset has {has}",
            expected=f"{dataset.num_episodes} episodes, {dataset.num_frames} frames",
            mend="give the file that was made from this dataset",
        )
    rows = np.asarray(dataset.starts[:-1][episode] + frame)
    other = np.flatnonzero(rows != index)
    if len(other):
        row = other[0]
        raise DataError(
            f"{len(other)} rows are numbered otherwise than the dataset's frames",
            where=f"{uri}, first: episode {episode[row]}, frame {frame[row]} has index {index[row]}",
            expected=f"index {rows[row]}, counted over all episodes",
            mend="give the file that was made from this dataset, with all its episodes",
        )
    twice = np.flatnonzero(np.bincount(rows, minlength=dataset.num_frames) > 1)
    if len(twice):
        raise DataError(f"a frame stands twice, first index {twice[0]}", where=uri, expected="one row a frame")
    return rows


def _check_complete(rows: np.ndarray[Any, Any], dataset: Dataset, uri: str, *, allow_partial: bool) -> None:
    """Check that each episode is there with all of its frames; with ``allow_partial`` one may be missing whole."""
    spoken = np.zeros(dataset.num_frames, bool)
    spoken[rows] = True
    found = np.add.reduceat(spoken.astype(np.int64), dataset.starts[:-1]) if dataset.num_episodes else rows[:0]
    lengths = np.diff(dataset.starts)
    short = np.flatnonzero((found > 0) & (found < lengths))
    missing = np.flatnonzero(found == 0) if not allow_partial else short[:0]
    if len(short):
        raise DataError(
            f"{len(short)} episodes are shorter than in the dataset",
            where=f"{uri}, first: episode {short[0]} has {found[short[0]]} rows",
            expected=f"its {lengths[short[0]]} frames",
            mend="give the file that was made from this dataset",
        )
    if len(missing):
        raise DataError(
            f"{len(missing)} of {dataset.num_episodes} episodes are missing",
            where=f"{uri}, first: episode {missing[0]}",
            expected="a row for each frame of the dataset",
            mend=PARTIAL_MEND,
        )
