"""Everything the run knows about each frame, joined: the dataset, what its values should be, values and labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from robolift import schema
from robolift.data.dataset import Dataset
from robolift.data.same_frames import check_keys
from robolift.errors import DataError
from robolift.manifest import Manifest

GROUND_TRUTH = "is_good_gt"


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
        slice_index: (N,) int64 slice of the advantage, -1 where the scheme has no slices.
        is_good: (N,) 1 where the acting controller was good, 0 where not, -1 where the simulator does not know; None
            when the recordings have no such column.
    """

    starts: NDArray[np.int64]
    episodes: pa.Table
    control_mode: NDArray[np.int64]
    outcome: NDArray[np.int64]
    value_target: NDArray[np.float64] | None
    value: NDArray[np.float64]
    value_std: NDArray[np.float64]
    advantage: NDArray[np.float64]
    valid: NDArray[np.bool_]
    label: NDArray[np.int64]
    slice_index: NDArray[np.int64]
    reason: NDArray[np.int64]
    is_good: NDArray[np.int64] | None

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


def codes(column: pa.ChunkedArray, names: tuple[str, ...]) -> NDArray[np.int64]:
    """Return the positions of a string column's values in ``names``.

    Raises:
        DataError: If a value is none of them.
    """
    found = pc.index_in(column, value_set=pa.array(names))
    if found.null_count:
        unknown = sorted({str(value) for value in pc.unique(column).to_pylist()} - set(names))
        raise DataError(f"unknown values {', '.join(unknown)}", expected=", ".join(names))
    return np.asarray(found.to_numpy(), dtype=np.int64)


def load_frames(dataset: Dataset, *, targets: Manifest | None, values: Manifest, labels: Manifest) -> FrameFacts:
    """Read and join the tables of one run.

    Raises:
        DataError: If a table has other frames than the dataset, or a category the contract does not know.
    """
    tables = {
        name: same_frames(dataset, made, name)
        for name, made in (("targets", targets), ("values", values), ("labels", labels))
        if made is not None
    }
    value, label = tables["values"], tables["labels"]
    starts = np.asarray(dataset.starts, dtype=np.int64)
    outcome = codes(dataset.episodes.column("outcome"), schema.OUTCOMES)
    slices = pc.fill_null(label.column("slice"), pa.scalar(-1, pa.int16()))
    return FrameFacts(
        starts=starts,
        episodes=dataset.episodes,
        control_mode=codes(dataset.frames.column("control_mode"), schema.CONTROL_MODES),
        outcome=np.repeat(outcome, np.diff(starts)),
        value_target=_floats(tables["targets"], "value_target") if "targets" in tables else None,
        value=_floats(value, "value"),
        value_std=_floats(value, "value_std"),
        advantage=_floats(label, "advantage"),
        valid=np.asarray(label.column("valid").to_numpy(), dtype=bool),
        label=codes(label.column("advantage_label"), schema.ADVANTAGE_LABELS),
        slice_index=np.asarray(slices.to_numpy(), dtype=np.int64),
        reason=codes(label.column("reason"), schema.LABEL_REASONS),
        is_good=_ground_truth(dataset),
    )


def _floats(table: pa.Table, name: str) -> NDArray[np.float64]:
    return np.asarray(table.column(name).to_numpy(), dtype=np.float64)


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
