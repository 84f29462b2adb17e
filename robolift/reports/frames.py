"""Everything the run knows about each frame, joined: the dataset, what its values should be, values and labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from robolift import schema
from robolift.data.dataset import Dataset
from robolift.data.same_frames import check_keys, read_frames
from robolift.errors import DataError
from robolift.manifest import Manifest
from robolift.table_files import TableReader

GROUND_TRUTH = "is_good_gt"

Codes = NDArray[np.signedinteger[Any]]
"""Categories of frames; a byte or two each, as frames may be millions."""


@dataclass(frozen=True, kw_only=True)
class FrameFacts:
    """One row a frame, sorted by episode and frame; N frames, E episodes.

    Categories are codes into the tuples of :mod:`robolift.schema`: ``control_mode`` into CONTROL_MODES, ``outcome``
    into OUTCOMES, ``label`` into ADVANTAGE_LABELS, ``reason`` into LABEL_REASONS.

    Attributes:
        starts: (E + 1,) row offsets of the episodes.
        episodes: schema.EPISODES, one row an episode.
        outcome: (N,) outcome of the frame's episode.
        value_target: (N,) float64 what the value should be, None when nothing says so.
        advantage: (N,) float64, NaN where the frame has none.
        slice_index: (N,) slice of the advantage, -1 where the scheme has no slices.
        is_good: (N,) 1 where the acting controller was good, 0 where not, -1 where the simulator does not know; None
            when the recordings have no such column.
    """

    starts: NDArray[np.int64]
    episodes: pa.Table
    control_mode: Codes
    outcome: Codes
    value_target: NDArray[np.float64] | None
    value: NDArray[np.float64]
    value_std: NDArray[np.float64]
    advantage: NDArray[np.float64]
    valid: NDArray[np.bool_]
    label: Codes
    slice_index: Codes
    reason: Codes
    is_good: Codes | None

    @property
    def num_frames(self) -> int:
        """N."""
        return int(self.starts[-1])

    @property
    def num_episodes(self) -> int:
        """E."""
        return len(self.starts) - 1

    def rows(self, episode: int) -> slice:
        """Return the rows of one episode."""
        return slice(int(self.starts[episode]), int(self.starts[episode + 1]))

    def mask(self, episodes: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return (N,) which frames belong to ``episodes``."""
        chosen = np.zeros(self.num_episodes, dtype=bool)
        chosen[episodes] = True
        return np.repeat(chosen, np.diff(self.starts))


def codes(column: pa.ChunkedArray, names: tuple[str, ...]) -> NDArray[np.int8]:
    """Return the positions of a string column's values in ``names``.

    Raises:
        DataError: If a value is none of them.
    """
    found = pc.index_in(column, value_set=pa.array(names))
    if found.null_count:
        unknown = sorted({str(value) for value in pc.unique(column).to_pylist()} - set(names))
        raise DataError(f"unknown values {', '.join(unknown)}", expected=", ".join(names))
    return np.asarray(found.to_numpy(), dtype=np.int8)


_Column = tuple[type[Any], Callable[[pa.ChunkedArray], Any]]
"""The dtype of a column in memory, and how its values are made."""
_FLOATS: _Column = (np.float64, pa.ChunkedArray.to_numpy)
_LABEL_COLUMNS: dict[str, _Column] = {
    "advantage": _FLOATS,
    "valid": (np.bool_, pa.ChunkedArray.to_numpy),
    "advantage_label": (np.int8, partial(codes, names=schema.ADVANTAGE_LABELS)),
    "slice": (np.int16, lambda column: pc.fill_null(column, pa.scalar(-1, pa.int16())).to_numpy()),
    "reason": (np.int8, partial(codes, names=schema.LABEL_REASONS)),
}


def load_frames(dataset: Dataset, *, targets: Manifest | None, values: Manifest, labels: Manifest) -> FrameFacts:
    """Read and join the tables of one run.

    Raises:
        DataError: If a table has other frames than the dataset, or a category the contract does not know.
    """
    target = None if targets is None else _read(dataset, targets, "targets", {"value_target": _FLOATS})["value_target"]
    value = _read(dataset, values, "values", {"value": _FLOATS, "value_std": _FLOATS})
    label = _read(dataset, labels, "labels", _LABEL_COLUMNS)
    starts = np.asarray(dataset.starts, dtype=np.int64)
    outcome = codes(dataset.episodes.column("outcome"), schema.OUTCOMES)
    return FrameFacts(
        starts=starts,
        episodes=dataset.episodes,
        control_mode=_control_modes(dataset),
        outcome=np.repeat(outcome, np.diff(starts)),
        value_target=target,
        value=value["value"],
        value_std=value["value_std"],
        advantage=label["advantage"],
        valid=label["valid"],
        label=label["advantage_label"],
        slice_index=label["slice"],
        reason=label["reason"],
        is_good=_ground_truth(dataset),
    )


def _read(dataset: Dataset, made: Manifest, name: str, columns: Mapping[str, _Column]) -> dict[str, NDArray[Any]]:
    """Return columns of a table, (N,) each; of the table itself only a block is in memory."""
    found = {column: np.empty(dataset.num_frames, dtype) for column, (dtype, _) in columns.items()}
    with TableReader(made.uri, name, [*schema.KEYS, *columns]) as reader:
        for first in range(0, dataset.num_frames, schema.ROW_GROUP_ROWS):
            end = min(first + schema.ROW_GROUP_ROWS, dataset.num_frames)
            rows = read_frames(reader, dataset, first, end)
            for column, (_, values) in columns.items():
                found[column][first:end] = values(rows.column(column))
    return found


def _control_modes(dataset: Dataset) -> NDArray[np.int8]:
    found = np.empty(dataset.num_frames, np.int8)
    with dataset.frame_blocks(["control_mode"]) as reader:
        for first, rows in reader.blocks():
            found[first : first + rows.num_rows] = codes(rows.column("control_mode"), schema.CONTROL_MODES)
    return found


def same_frames(dataset: Dataset, made: Manifest, name: str) -> pa.Table:
    """Read table ``name`` of an output.

    Raises:
        DataError: If it has other frames than the dataset.
    """
    table = made.table(name)
    check_keys(table, dataset, where=made.file(f"{name}.parquet"))
    return table


def _ground_truth(dataset: Dataset) -> NDArray[np.int64] | None:
    if GROUND_TRUTH not in dataset.features:
        return None
    return np.asarray(dataset.column(GROUND_TRUTH)).reshape(-1).astype(np.int64)
