"""Some whole episodes of what labels are made from: columns of the tables and recordings, and who was in control."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from robolift import schema
from robolift.data.columns import to_model
from robolift.data.same_frames import read_frames
from robolift.errors import DataError, UsageError
from robolift.labeling.population import Role
from robolift.labeling.returns import BoolArray, FloatArray
from robolift.stages.label_faults import Fault, Faults
from robolift.stages.label_sources import COUNTED, Sources, codes
from robolift.table_files import TableReader

PROGRESS_SLACK = 1e-6
MOST_PROGRESS = np.float64(1e100)
"""Progress whose square can be added up as float64."""
ROLE_OF_MODE = {
    "demo": Role.DEMO,
    "autonomous": Role.AUTONOMOUS,
    "correcting": Role.INTERVENTION,
    "paused": Role.PAUSED,
}


def read_blocks(sources: Sources, faults: Faults) -> Iterator[Block]:
    """Yield all frames in order, some whole episodes at a time.

    Args:
        sources: Where they are read from.
        faults: Where blocks note the frames that fail a check.

    Raises:
        DataError: If a table has other frames than the dataset.
    """
    dataset = sources.dataset
    with ExitStack() as opened:
        frames = opened.enter_context(dataset.frame_blocks(sources.frame_columns))
        readers = {
            name: opened.enter_context(TableReader(made.uri, name, sources.read[name]))
            for name, made in sources.given.items()
        }
        for episodes in sources.episode_blocks():
            first, end = (int(dataset.starts[episode]) for episode in (episodes.start, episodes.stop))
            tables = {name: read_frames(reader, dataset, first, end) for name, reader in readers.items()}
            recorded = dataset.stored_columns(sources.recorded, episodes) if sources.recorded else {}
            yield Block(sources, episodes, frames.read(first, end), tables, recorded, faults)


class Block:
    """Some whole episodes; every array is (n,), of their frames.

    Attributes:
        sources: All of it.
        episodes: Which episodes.
        starts: Offsets of the episodes in the block.
        num_frames: n.
    """

    def __init__(
        self,
        sources: Sources,
        episodes: range,
        frames: pa.Table,
        tables: Mapping[str, pa.Table],
        recorded: Mapping[str, npt.NDArray[Any]],
        faults: Faults,
    ) -> None:
        """Hold what was read: the rows of ``frames`` and of the given tables, and columns of the recordings."""
        self.sources = sources
        self.episodes = episodes
        bounds = sources.dataset.starts[episodes.start : episodes.stop + 1]
        self.starts = bounds - bounds[0]
        self.num_frames = int(self.starts[-1])
        self._first = int(bounds[0])
        self._frames = frames
        self._tables = tables
        self._recorded = recorded
        self._faults = faults

    def signal(self, table: str, column: str, *, source: str) -> FloatArray:
        """Return a column of targets or values, float32, finite where no fault is noted.

        Raises:
            UsageError: If that input was not given.
        """
        if table not in self._tables:
            raise UsageError(f"source {source} needs input {table}; give it, or choose another source")
        signal: FloatArray = self._tables[table].column(column).to_numpy()
        self.check_finite(signal, np.ones(len(signal), dtype=bool), what=f"column {column} of {table}")
        return signal

    def column(self, name: str) -> FloatArray:
        """Return a number for each frame of the rewards, the values or the dataset, NaN where not known.

        A column of the dataset keeps its precision. One that the values table leaves empty, as a single-frame model
        leaves ``relative_advantage``, is the dataset's where that has one of the name.

        Raises:
            UsageError: If neither has the column.
            DataError: If it is not one number a frame.
        """
        if self.sources.annotates(name):
            return np.asarray(self._tables["rewards"].column(name).to_numpy())
        if self.sources.predicts(name):
            return np.asarray(self._tables["values"].column(name).to_numpy())
        found = self._of_dataset(name)
        if found.ndim != 1 or found.dtype.kind not in "fiub":
            raise DataError(
                f"column {name} is {found.dtype} of shape {found.shape}",
                where="dataset",
                expected="one number a frame",
                mend="name another column",
            )
        return found if found.dtype.kind == "f" else found.astype(np.float64)

    def _of_dataset(self, name: str) -> npt.NDArray[Any]:
        dataset, given = self.sources.dataset, self.sources.given
        if name not in dataset.features:
            tables = "rewards, values" if "rewards" in given else "values"
            without = "" if "values" in given else " (no input values was given)"
            known = ", ".join(sorted(dataset.features))
            raise UsageError(f"no column {name!r} in {tables}{without} nor in the dataset, which has: {known}")
        if name in self._recorded:
            return self._recorded[name]
        if name in COUNTED:
            return self.per_frame(self.sources.task) if name == "task_index" else self._rows
        if name in schema.KEYS:
            return dataset.keys(self._first, self._first + self.num_frames)[name]
        if name in schema.TABLES["frames"].names:
            return to_model(np.asarray(self._frames.column(name).to_numpy()))
        return dataset.stored_columns([name], self.episodes)[name]

    @property
    def _rows(self) -> npt.NDArray[np.int64]:
        return np.arange(self._first, self._first + self.num_frames)

    def progress(self, name: str) -> FloatArray:
        """Return a column of progress, NaN where it is not known; that a number is infinite, or as good as, is noted.

        Raises:
            UsageError: If there is no such column.
            DataError: If it is not one number a frame.
        """
        column = self.column(name)
        large = np.abs(column) > MOST_PROGRESS
        self._check(f"size of {name}", column, np.ones(len(column), dtype=bool), large, partial(_infinite, name))
        return np.where(large, np.nan, column)

    def stage_progress(self, name: str, rows: BoolArray) -> FloatArray:
        """Return the stage progress, known in ``rows``; a prediction may stray from [0, 1], a record may not.

        Raises:
            DataError: If there is no such column. That it is not known, or recorded outside [0, 1], is noted.
        """
        predicts, dataset = self.sources.predicts(name), self.sources.dataset
        if not (self.sources.annotates(name) or predicts) and name not in dataset.features:
            raise DataError(
                f"group_by task_stage needs the stage progress of every ranked frame, and there is no column {name}",
                where="dataset",
                expected="a column of numbers in [0, 1]: stage k of S runs from k / S to (k + 1) / S",
                mend="annotate the episodes, name another stage_progress_column (value: that of the value model), or "
                "take group_by: task, which needs none",
            )
        progress = self.column(name)
        self.check_finite(progress, rows, what=f"stage progress {name}")
        below = progress < -PROGRESS_SLACK
        if not predicts:
            outside = below | (progress > 1 + PROGRESS_SLACK)
            self._check(f"range of {name}", progress, rows, outside, partial(_outside, name))
        returns = partial(_returns, name, "values" if predicts else "dataset")
        self._check(f"sign of {name}", progress, rows, below, returns, only_if_all=True)
        return progress

    def check_finite(self, signal: FloatArray, rows: BoolArray, *, what: str) -> None:
        """Note where ``signal`` is not a finite number in ``rows``."""
        self._check(what, signal, rows, ~np.isfinite(signal), partial(_not_finite, what))

    def _check(
        self,
        name: str,
        values: FloatArray,
        rows: BoolArray,
        wrong: BoolArray,
        tell: Callable[[Fault], DataError],
        **how: bool,
    ) -> None:
        self._faults.check(name, values, looked_at=rows, wrong=wrong, where=self._name_of, tell=tell, **how)

    def _name_of(self, row: int) -> str:
        episode = int(np.searchsorted(self.starts, row, side="right")) - 1
        return f"episode {self.episodes[episode]}, frame {row - int(self.starts[episode])}"

    def modes(self) -> npt.NDArray[np.int64]:
        """Return the position of each frame's control mode in ``schema.CONTROL_MODES``."""
        return codes(self._frames.column("control_mode"), schema.CONTROL_MODES)

    def roles(self, modes: npt.NDArray[np.int64]) -> npt.NDArray[np.int8]:
        """Return who controlled each frame, a :class:`Role`; all of a demonstration is demonstrated or paused."""
        role = np.array([ROLE_OF_MODE[name] for name in schema.CONTROL_MODES], dtype=np.int8)[modes]
        role[self.per_frame(self.sources.is_demo) & (role != Role.PAUSED)] = Role.DEMO
        return role

    def per_frame(self, of_episode: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return for each frame what its episode has in ``of_episode``, (E,) over all episodes."""
        return np.repeat(of_episode[self.episodes.start : self.episodes.stop], np.diff(self.starts))


def _not_finite(what: str, fault: Fault) -> DataError:
    return DataError(
        f"{what} is {fault.value} in {fault.count} frames that are ranked",
        where=f"first at {fault.where}",
        expected="a finite number",
        mend="mend the column, or keep those frames out of the population and label them by rule",
    )


def _infinite(name: str, fault: Fault) -> DataError:
    return DataError(
        f"the progress {name} that frames are weighted by is {fault.value:g} in {fault.count} frames",
        where=f"first at {fault.where}",
        expected="a finite number, or NaN where progress is not known",
        mend="mend the column, or name another weight_column",
    )


def _outside(name: str, fault: Fault) -> DataError:
    return DataError(
        f"stage progress {name} is {fault.value:g}, {fault.count} frames lie outside [0, 1]",
        where=f"first at {fault.where}",
        expected="a fraction of the task in [0, 1]",
        mend="mend the column",
    )


def _returns(name: str, where: str, fault: Fault) -> DataError:
    return DataError(
        f"stage progress {name} lies below 0 in all {fault.count} frames",
        where=where,
        expected="a fraction of the task in [0, 1]; the returns of head distribution are none",
        mend="predict with a model of head relative or single, or name another stage_progress_column",
    )
