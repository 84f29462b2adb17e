"""The columns of an export that are not as they were stored: numbers that count anew, and what is joined."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from robolift.data.dataset import Dataset
from robolift.data.joined import JoinedColumns
from robolift.errors import UsageError
from robolift.schema import EPISODE_INDEX
from robolift.table_files import episode_blocks

NUMBERING = (EPISODE_INDEX, "index", "task_index")


class FreshColumns:
    """Hands the columns out by episode or, of one of them, by block.

    Attributes:
        types: Arrow type of each column, those that count anew first.
    """

    def __init__(self, dataset: Dataset, joined: JoinedColumns, task: np.ndarray[Any, Any]) -> None:
        """Read nothing yet.

        Args:
            dataset: Whose frames they are of.
            joined: The joined columns; one named ``task_index`` is that of each frame.
            task: ``task_index`` of each episode where no such column is joined, (E,).
        """
        self.types: dict[str, pa.DataType] = {**dict.fromkeys(NUMBERING, pa.int64()), **joined.types}
        self._dataset = dataset
        self._joined = joined
        self._task = task
        self._episodes = self._by_episode()
        self._current: tuple[int, dict[str, pa.Array]] = (-1, {})

    def of(self, episode: int) -> dict[str, pa.Array]:
        """Return the rows of an episode, the last one asked for or a later one.

        Raises:
            UsageError: If it is an earlier one.
        """
        if episode < self._current[0]:
            raise UsageError(
                f"episode {episode} was passed: columns are read onwards, and {self._current[0]} is reached"
            )
        while self._current[0] < episode:
            self._current = next(self._episodes)
        return self._current[1]

    def blocks(self, name: str) -> Iterator[np.ndarray[Any, Any]]:
        """Yield the numbers of a column, block by block."""
        if name in self._joined.types:
            for columns in self._joined.blocks([name]):
                yield columns[name].to_numpy(zero_copy_only=False)
        else:
            for episodes in episode_blocks(self._dataset.starts):
                yield self._numbering(episodes)[name]

    def _by_episode(self) -> Iterator[tuple[int, dict[str, pa.Array]]]:
        starts, names = self._dataset.starts, list(self._joined.types)
        joined = self._joined.blocks(names) if names else itertools.repeat({})
        for episodes, columns in zip(episode_blocks(starts), joined, strict=bool(names)):
            counted = {name: pa.array(numbers) for name, numbers in self._numbering(episodes).items()}
            block = {**counted, **columns}
            for episode in episodes:
                first = int(starts[episode] - starts[episodes.start])
                length = int(starts[episode + 1] - starts[episode])
                yield episode, {name: block[name].slice(first, length) for name in self.types}

    def _numbering(self, episodes: range) -> dict[str, np.ndarray[Any, Any]]:
        starts = self._dataset.starts[episodes.start : episodes.stop + 1]
        lengths = np.diff(starts)
        return {
            EPISODE_INDEX: np.repeat(np.arange(episodes.start, episodes.stop), lengths),
            "index": np.arange(starts[0], starts[-1]),
            "task_index": np.repeat(self._task[episodes.start : episodes.stop], lengths),
        }
