"""What labels are made from: the tables, checked against the dataset they belong to, opened to be read by blocks."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from robolift import schema
from robolift.data.dataset import Dataset
from robolift.errors import DataError, UsageError
from robolift.labeling.returns import IntArray
from robolift.manifest import Manifest
from robolift.stages.stage import Inputs
from robolift.table_files import TableReader, episode_blocks

COUNTED = ("index", "task_index")
"""Columns that count over all recordings of a dataset, which therefore are not what a recording has in them."""
GIVEN = ("targets", "values", "rewards")
REWARD_NUMBERS = ("progress", "success_prob", "tri", "reward", "stage", "confidence")
"""Columns of the rewards table that labels can be made from."""


class Sources:
    """The tables a label is made from, all with the rows of the dataset's frames.

    Attributes:
        dataset: The dataset.
        given: Manifests of the targets, values and rewards that were given, by these names.
        read: Columns to read of each of them.
        frame_columns: Columns to read of the dataset's frames.
        recorded: Columns to read of the recordings.
    """

    def __init__(
        self, inputs: Inputs, columns: Sequence[str] = (), signals: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        """Open the inputs.

        Args:
            inputs: The dataset and, where given, targets, values and rewards.
            columns: Columns that :meth:`Block.column` will be asked for.
            signals: Columns of targets and values that :meth:`Block.signal` will be asked for, by table.

        Raises:
            DataError: If a table was made from another dataset.
        """
        self.dataset = Dataset.open(inputs.one("dataset"))
        self.given = {name: made for name in GIVEN if (made := inputs.get_one(name))}
        for name, made in self.given.items():
            check_origin(made, inputs.one("dataset"), name)
        self._empty: dict[str, bool] = {}
        read = {name: list((signals or {}).get(name, ())) for name in self.given}
        for name in columns:
            if self.annotates(name):
                read["rewards"].append(name)
            elif self.predicts(name):
                read["values"].append(name)
        self.read = {name: list(dict.fromkeys([*schema.KEYS, *found])) for name, found in read.items()}
        recorded = {name for name, facts in self.dataset.features.items() if facts["dtype"] != "video"}
        recorded -= {*schema.TABLES["frames"].names, *COUNTED, *(name for found in read.values() for name in found)}
        self.frame_columns = ["control_mode", *({"timestamp"} & set(columns))]
        self.recorded = [name for name in dict.fromkeys(columns) if name in recorded]

    def episode_blocks(self) -> Iterator[range]:
        """Yield the episodes of each block."""
        return episode_blocks(self.dataset.starts)

    def annotates(self, name: str) -> bool:
        """Tell whether a column is taken from the rewards table: it is where that was given and has it.

        Also where all of it is null: who gives labels does not mean the dataset's column of the same name.
        """
        return "rewards" in self.given and name in REWARD_NUMBERS

    def predicts(self, name: str) -> bool:
        """Tell whether a column is taken from the values table."""
        if "values" not in self.given or name not in schema.TABLES["values"].names:
            return False
        return not (name in self.dataset.features and self.is_empty(name))

    def is_empty(self, name: str) -> bool:
        """Tell whether all of a column of the values table is null."""
        if name not in self._empty:
            self._empty[name] = schema.TABLES["values"].field(name).nullable and self._look(name)
        return self._empty[name]

    def _look(self, name: str) -> bool:
        with TableReader(self.given["values"].uri, "values", [name]) as reader:
            return all(rows.column(name).null_count == rows.num_rows for _, rows in reader.blocks())

    def check_relative_advantage(self, lookahead: int) -> None:
        """Check that a two-frame estimator predicted what the values table says of a frame and a later one.

        Raises:
            DataError: If another kind of model predicted it.
            UsageError: If the later frame is not the one ``lookahead`` frames later.
        """
        if not self.predicts("relative_advantage"):
            return
        if self.is_empty("relative_advantage"):
            raise DataError(
                "relative_advantage is null in all frames: the values are not those of a two-frame estimator",
                where="values, column relative_advantage",
                expected="values predicted by a model of train_value with head: relative",
                mend="train and predict with that head, or take source: absolute_advantage, which any head gives",
            )
        check_lookahead(self.given["values"], lookahead)

    @functools.cached_property
    def task(self) -> npt.NDArray[np.int64]:
        """Position of each episode's task in ``dataset.tasks``, (E,).

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
        return task

    @functools.cached_property
    def outcome(self) -> npt.NDArray[np.int64]:
        """Position of each episode's outcome in ``schema.OUTCOMES``, (E,)."""
        return codes(self.dataset.episodes.column("outcome"), schema.OUTCOMES)

    @functools.cached_property
    def is_failure(self) -> npt.NDArray[np.bool_]:
        """Whether each episode failed, (E,)."""
        return np.equal(self.outcome, schema.OUTCOMES.index("failure"))

    @functools.cached_property
    def is_demo(self) -> npt.NDArray[np.bool_]:
        """Whether each episode is a demonstration, (E,)."""
        kind = codes(self.dataset.episodes.column("kind"), schema.EPISODE_KINDS)
        return np.equal(kind, schema.EPISODE_KINDS.index("demo"))

    @functools.cached_property
    def iteration(self) -> npt.NDArray[np.int32]:
        """Iteration of each episode, (E,)."""
        return np.asarray(self.dataset.episodes.column("iteration").to_numpy())

    @functools.cached_property
    def is_latest(self) -> npt.NDArray[np.bool_]:
        """Whether each episode is of the latest iteration, (E,)."""
        return np.asarray(self.iteration == self.iteration.max())


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
    for shard in values.parents("shards", most=1):
        if shard.config.get("lookahead", lookahead) != lookahead:
            raise UsageError(
                f"lookahead is {lookahead}, and relative_advantage was predicted over {shard.config['lookahead']} "
                f"frames ({values.uri}); set lookahead to that, or predict again"
            )
