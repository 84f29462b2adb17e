"""What labels are made from: the tables, checked against the dataset they belong to, and who controlled each frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from robolift import schema
from robolift.data.dataset import Dataset
from robolift.errors import DataError, UsageError
from robolift.labeling.population import Role
from robolift.labeling.returns import BoolArray, FloatArray, IntArray
from robolift.manifest import Manifest
from robolift.stages.stage import Inputs

COUNTED = ("index", "task_index")
PROGRESS_SLACK = 1e-6
REWARD_NUMBERS = ("progress", "success_prob", "tri", "reward", "stage", "confidence")
"""Columns of the rewards table that labels can be made from."""
ROLE_OF_MODE = {
    "demo": Role.DEMO,
    "autonomous": Role.AUTONOMOUS,
    "correcting": Role.INTERVENTION,
    "paused": Role.PAUSED,
}


@dataclass(frozen=True, kw_only=True)
class Sources:
    """The tables a label is made from, all with the rows of ``dataset.frames``."""

    dataset: Dataset
    targets: pa.Table | None
    values: pa.Table | None
    values_from: Manifest | None = None
    rewards: pa.Table | None = None
    _stored: dict[str, npt.NDArray[Any]] = field(default_factory=dict, repr=False)

    @classmethod
    def open(cls, inputs: Inputs, columns: Sequence[str] = ()) -> Sources:
        """Open the inputs.

        Args:
            inputs: The dataset and, where given, targets, values and rewards.
            columns: Columns that :meth:`column` will be asked for; those of the dataset are read in one go.

        Raises:
            DataError: If a table has other frames than the dataset, or was made from another one.
        """
        dataset = Dataset.open(inputs.one("dataset"))
        tables: dict[str, pa.Table | None] = {}
        for name in ("targets", "values", "rewards"):
            given = inputs.get_one(name)
            tables[name] = given.table(name) if given else None
            if given:
                check_origin(given, inputs.one("dataset"), name)
                check_keys(tables[name], dataset, where=given.file(f"{name}.parquet"))
        sources = cls(
            dataset=dataset,
            targets=tables["targets"],
            values=tables["values"],
            values_from=inputs.get_one("values"),
            rewards=tables["rewards"],
        )
        numbers = {name for name, facts in dataset.features.items() if facts["dtype"] != "video"}
        numbers -= {*dataset.frames.column_names, *COUNTED}
        numbers -= {name for name in columns if sources.annotates(name) or sources.predicts(name)}
        wanted = [name for name in dict.fromkeys(columns) if name in numbers]
        if wanted:
            sources._stored.update(dataset.stored_columns(wanted))
        return sources

    def signal(self, table: str, column: str, *, source: str) -> FloatArray:
        """Return a column of targets or values, (F,) float32.

        Raises:
            UsageError: If that input was not given.
            DataError: If it holds something that is not a finite number.
        """
        found: pa.Table | None = getattr(self, table)
        if found is None:
            raise UsageError(f"source {source} needs input {table}; give it, or choose another source")
        signal: FloatArray = found.column(column).to_numpy()
        self.check_finite(signal, np.ones(len(signal), dtype=bool), what=f"column {column} of {table}")
        return signal

    def column(self, name: str) -> FloatArray:
        """Return a number for each frame of the rewards, the values or the dataset, (F,), NaN where not known.

        A column of the dataset keeps its precision. One that the values table leaves empty, as a single-frame model
        leaves ``relative_advantage``, is the dataset's where that has one of the name.

        Raises:
            UsageError: If neither has the column.
            DataError: If it is not one number a frame.
        """
        if self.annotates(name):
            assert self.rewards is not None
            return np.asarray(self.rewards.column(name).to_numpy())
        if self.predicts(name):
            assert self.values is not None
            return np.asarray(self.values.column(name).to_numpy())
        if name not in self.dataset.features:
            tables = "values" if self.rewards is None else "rewards, values"
            without = "" if self.values is not None else " (no input values was given)"
            known = ", ".join(sorted(self.dataset.features))
            raise UsageError(f"no column {name!r} in {tables}{without} nor in the dataset, which has: {known}")
        if name in self._stored:
            found = self._stored[name]
        elif name in self.dataset.frames.column_names or name in COUNTED:
            found = self.dataset.column(name)
        else:
            found = self.dataset.stored_columns([name])[name]
        if found.ndim != 1 or found.dtype.kind not in "fiub":
            raise DataError(
                f"column {name} is {found.dtype} of shape {found.shape}",
                where="dataset",
                expected="one number a frame",
                mend="name another column",
            )
        return found if found.dtype.kind == "f" else found.astype(np.float64)

    def annotates(self, name: str) -> bool:
        """Tell whether :meth:`column` takes ``name`` from the rewards table: it does where that was given and has it.

        Also where all of it is null: who gives labels does not mean the dataset's column of the same name.
        """
        return self.rewards is not None and name in REWARD_NUMBERS

    def predicts(self, name: str) -> bool:
        """Tell whether :meth:`column` takes ``name`` from the values table."""
        if self.values is None or name not in self.values.column_names:
            return False
        empty = self.values.column(name).null_count == self.values.num_rows
        return not (empty and name in self.dataset.features)

    def relative_advantage(self, lookahead: int) -> FloatArray:
        """Return what a two-frame estimator predicted for each frame and the one ``lookahead`` later, (F,) float32.

        Raises:
            UsageError: If neither the values nor the dataset has such a column, or the values have another lookahead.
            DataError: If the values were predicted by another kind of model.
        """
        if self.predicts("relative_advantage"):
            assert self.values is not None
            column = self.values.column("relative_advantage")
            if column.null_count == len(column):
                raise DataError(
                    "relative_advantage is null in all frames: the values are not those of a two-frame estimator",
                    where="values, column relative_advantage",
                    expected="values predicted by a model of train_value with head: relative",
                    mend="train and predict with that head, or take source: absolute_advantage, which any head gives",
                )
            assert self.values_from is not None
            check_lookahead(self.values_from, lookahead)
        return self.column("relative_advantage")

    def stage_progress(self, name: str, rows: BoolArray) -> FloatArray:
        """Return the stage progress, (F,), known in ``rows``; a prediction may stray from [0, 1], a record may not.

        Raises:
            UsageError: If there is no such column.
            DataError: If it is not known, or recorded outside [0, 1], in one of ``rows``.
        """
        if not (self.annotates(name) or self.predicts(name)) and name not in self.dataset.features:
            raise DataError(
                f"group_by task_stage needs the stage progress of every ranked frame, and there is no column {name}",
                where="dataset",
                expected="a column of numbers in [0, 1]: stage k of S runs from k / S to (k + 1) / S",
                mend="annotate the episodes, name another stage_progress_column (value: that of the value model), or "
                "take group_by: task, which needs none",
            )
        progress = self.column(name)
        self.check_finite(progress, rows, what=f"stage progress {name}")
        wrong = np.flatnonzero(rows & ((progress < -PROGRESS_SLACK) | (progress > 1 + PROGRESS_SLACK)))
        if len(wrong) and not self.predicts(name):
            episode, frame = (self.dataset.frames.column(key)[int(wrong[0])].as_py() for key in schema.KEYS)
            raise DataError(
                f"stage progress {name} is {progress[wrong[0]]:g}, {len(wrong)} frames lie outside [0, 1]",
                where=f"first at episode {episode}, frame {frame}",
                expected="a fraction of the task in [0, 1]",
                mend="mend the column",
            )
        if rows.any() and (progress[rows] < -PROGRESS_SLACK).all():
            raise DataError(
                f"stage progress {name} lies below 0 in all {int(rows.sum())} frames",
                where="values" if self.predicts(name) else "dataset",
                expected="a fraction of the task in [0, 1]; the returns of head distribution are none",
                mend="predict with a model of head relative or single, or name another stage_progress_column",
            )
        return progress

    def check_finite(self, signal: FloatArray, rows: BoolArray, *, what: str) -> None:
        """Check that ``signal`` is a finite number in ``rows``.

        Raises:
            DataError: Naming the first episode and frame where it is not.
        """
        wrong = np.flatnonzero(rows & ~np.isfinite(signal))
        if len(wrong):
            episode, frame = (self.dataset.frames.column(key)[int(wrong[0])].as_py() for key in schema.KEYS)
            raise DataError(
                f"{what} is {signal[wrong[0]]} in {len(wrong)} frames that are ranked",
                where=f"first at episode {episode}, frame {frame}",
                expected="a finite number",
                mend="mend the column, or keep those frames out of the population and label them by rule",
            )

    def roles(self) -> npt.NDArray[np.int8]:
        """Return who controlled each frame, a :class:`Role`, (F,); all of a demonstration is demonstrated or paused."""
        mode = codes(self.dataset.frames.column("control_mode"), schema.CONTROL_MODES)
        role = np.array([ROLE_OF_MODE[name] for name in schema.CONTROL_MODES], dtype=np.int8)[mode]
        in_demo = self.per_frame("kind", schema.EPISODE_KINDS) == schema.EPISODE_KINDS.index("demo")
        role[in_demo & (role != Role.PAUSED)] = Role.DEMO
        return role

    def per_frame(self, column: str, names: Sequence[str]) -> npt.NDArray[np.int64]:
        """Return for each frame the position in ``names`` of its episode's ``column``, -1 for none of them, (F,)."""
        return np.repeat(codes(self.dataset.episodes.column(column), names), np.diff(self.dataset.starts))

    def in_latest_iteration(self) -> BoolArray:
        """Return which frames belong to the newest iteration, (F,)."""
        iteration = self.dataset.episodes.column("iteration").to_numpy()
        return np.repeat(iteration == iteration.max(), np.diff(self.dataset.starts))

    def tasks(self) -> npt.NDArray[np.int64]:
        """Return the position of each frame's task in ``dataset.tasks``, (F,).

        Raises:
            DataError: If the task of an episode is not among them, so that it has no prompt.
        """
        task = codes(self.dataset.episodes.column("task"), self.dataset.tasks)
        if (task < 0).any():
            row = self.dataset.episodes.slice(int((task < 0).argmax()), 1).to_pylist()[0]
            raise DataError(
                f"task {row['task']!r} has no prompt",
                where=f"episode {row['episode_index']}",
                expected=f"one of the dataset's tasks: {', '.join(map(repr, self.dataset.tasks))}",
                mend="import the dataset again",
            )
        return np.repeat(task, np.diff(self.dataset.starts))


def codes(column: pa.ChunkedArray, names: Sequence[str]) -> npt.NDArray[np.int64]:
    """Return the position in ``names`` of each string, -1 for one that is not among them."""
    import pyarrow.compute as pc  # noqa: PLC0415  (a quarter of this stage's start)

    found = pc.index_in(column, value_set=pa.array(names, type=pa.string()))
    return np.asarray(pc.fill_null(found, -1).to_numpy(), dtype=np.int64)


def strings(code: IntArray, names: Sequence[str]) -> pa.Array:
    """Return the string of each code: the inverse of :func:`codes`."""
    return pa.DictionaryArray.from_arrays(pa.array(code, type=pa.int32()), pa.array(names)).cast(pa.string())


def check_origin(made: Manifest, dataset: Manifest, name: str) -> None:
    """Check that a table was made from this dataset and not from one that has as many frames.

    Raises:
        DataError: Naming both datasets.
    """
    for parent in made.inputs.get("dataset", []):
        if parent.digest != dataset.digest:
            raise DataError(
                f"the {name} were made from another dataset ({parent.uri})",
                where=made.uri,
                expected=dataset.uri,
                mend=f"give the {name} of this dataset",
            )


def check_lookahead(values: Manifest, lookahead: int) -> None:
    """Check that a two-frame estimator looked as far ahead as is asked for.

    Raises:
        UsageError: Naming both numbers.
    """
    for shard in values.parents("shards")[:1]:
        if shard.config.get("lookahead", lookahead) != lookahead:
            raise UsageError(
                f"lookahead is {lookahead}, and relative_advantage was predicted over {shard.config['lookahead']} "
                f"frames ({values.uri}); set lookahead to that, or predict again"
            )


def check_keys(table: pa.Table, dataset: Dataset, *, where: str) -> None:
    """Check that a table has exactly the dataset's frames.

    Raises:
        DataError: Naming the first frame that one of them lacks.
    """
    ours, theirs = (
        np.stack([source.column(key).to_numpy() for key in schema.KEYS], axis=1) for source in (dataset.frames, table)
    )
    if np.array_equal(ours, theirs):
        return
    shared = min(len(ours), len(theirs))
    differs = (ours[:shared] != theirs[:shared]).any(axis=1)
    row = int(differs.argmax()) if differs.any() else shared
    episode, frame = (ours if len(ours) > row else theirs)[row]
    raise DataError(
        f"its {len(theirs)} frames are not the dataset's {len(ours)} frames",
        where=f"{where}, first difference at episode {episode}, frame {frame}",
        expected="one row for each frame of the dataset",
        mend="make the table again from this dataset",
    )
