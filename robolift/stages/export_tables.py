"""The tables that an export joins to the frames, checked once and then read by blocks of whole episodes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from robolift import schema
from robolift.data.dataset import FRAMES, Dataset
from robolift.data.same_frames import read_frames
from robolift.errors import DataError
from robolift.labeling.returns import IntArray
from robolift.manifest import Manifest
from robolift.table_files import TableReader, episode_blocks


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a column of numbers holds in all frames.

    Attributes:
        nulls: In how many frames it is null.
        unknown: In how many it is null, NaN or infinite.
        first_unknown: The first of them, -1 if there is none.
        least: Smallest number, infinite if there is none.
        most: Largest number.
    """

    nulls: int = 0
    unknown: int = 0
    first_unknown: int = -1
    least: float = np.inf
    most: float = -np.inf

    def after(self, column: pa.ChunkedArray, first: int) -> Facts:
        """Return the facts with some more frames, of which ``first`` is the number of the first."""
        numbers = np.asarray(column.to_numpy())
        unknown = np.flatnonzero(~np.isfinite(numbers))
        known = np.delete(numbers, unknown)
        new = first + int(unknown[0]) if len(unknown) else -1
        return Facts(
            nulls=self.nulls + column.null_count,
            unknown=self.unknown + len(unknown),
            first_unknown=self.first_unknown if self.unknown else new,
            least=min(self.least, float(known.min())) if len(known) else self.least,
            most=max(self.most, float(known.max())) if len(known) else self.most,
        )


@dataclass(frozen=True, kw_only=True)
class Block:
    """Some whole episodes.

    Attributes:
        dataset: Whose they are.
        episodes: Which.
        tables: Their rows of each table, and of ``frames``.
    """

    dataset: Dataset
    episodes: range
    tables: Mapping[str, pa.Table]

    @property
    def starts(self) -> IntArray:
        """Offsets of the episodes in the block, (e + 1,)."""
        bounds = self.dataset.starts[self.episodes.start : self.episodes.stop + 1]
        return np.asarray(bounds - bounds[0])

    def array(self, table: str, column: str) -> pa.Array:
        """Return a column as it is."""
        return self.tables[table].column(column).combine_chunks()

    def numbers(self, table: str, column: str) -> npt.NDArray[Any]:
        """Return a column of numbers, (n,); one of whole numbers with nulls becomes float64 with NaN."""
        return np.asarray(self.tables[table].column(column).to_numpy())


class FrameTables:
    """The tables, each with the rows of the dataset's frames.

    Attributes:
        dataset: The dataset.
        made: Manifest of each table.
        facts: Of each column of numbers, by table and column.
    """

    def __init__(
        self, origin: Manifest, made: Mapping[str, Manifest], columns: Mapping[str, Sequence[str]], *, modes: bool
    ) -> None:
        """Check, block by block, that the tables speak of this dataset, frame by frame.

        Args:
            origin: The dataset.
            made: Output of each table, by its name.
            columns: Columns to read of each.
            modes: Whether the control modes are read too.

        Raises:
            DataError: If a table was made from another dataset, or has other frames.
        """
        self.dataset = Dataset.open(origin)
        self.made = dict(made)
        self._columns = {name: list(columns[name]) for name in made}
        self._modes = modes
        self.facts: dict[tuple[str, str], Facts] = {}
        for name in made:
            self._check(origin, name)

    def _check(self, origin: Manifest, name: str) -> None:
        dataset, made = self.dataset, self.made[name]
        parents = made.inputs.get("dataset", [])
        kinds = {column: schema.TABLES[name].field(column).type for column in self._columns[name]}
        counted = [kind for kind, of in kinds.items() if pa.types.is_integer(of) or pa.types.is_floating(of)]
        self.facts |= {(name, column): Facts() for column in counted}
        with TableReader(made.uri, name, list(dict.fromkeys([*schema.KEYS, *self._columns[name]]))) as reader:
            if not all(parent.digest == origin.digest for parent in parents):
                raise DataError(
                    f"table {name} ({reader.num_rows} rows) was made from another dataset",
                    where=made.file(f"{name}.parquet"),
                    expected=f"a row for each of the {dataset.num_frames} frames of {origin.uri}",
                    mend=f"give the {name} that were made from this dataset",
                )
            for episodes in episode_blocks(dataset.starts):
                first, end = self._rows(episodes)
                rows = read_frames(reader, dataset, first, end)
                for column in counted:
                    self.facts[name, column] = self.facts[name, column].after(rows.column(column), first)

    def blocks(self) -> Iterator[Block]:
        """Yield all frames in order, some whole episodes at a time."""
        with ExitStack() as opened:
            readers = {
                name: opened.enter_context(TableReader(made.uri, name, self._columns[name]))
                for name, made in self.made.items()
                if self._columns[name]
            }
            if self._modes:
                readers[FRAMES] = opened.enter_context(self.dataset.frame_blocks(["control_mode"]))
            for episodes in episode_blocks(self.dataset.starts):
                first, end = self._rows(episodes)
                tables = {name: reader.read(first, end) for name, reader in readers.items()}
                yield Block(dataset=self.dataset, episodes=episodes, tables=tables)

    def _rows(self, episodes: range) -> tuple[int, int]:
        return int(self.dataset.starts[episodes.start]), int(self.dataset.starts[episodes.stop])
