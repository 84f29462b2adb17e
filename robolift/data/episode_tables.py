"""Writes the tables of an import while its episodes are read: no more than a block of frames is in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from robolift import schema
from robolift.data.dataset import Dataset
from robolift.data.episodes import EpisodeFacts
from robolift.table_files import TableWriter, episode_blocks

BLOCK_FRAMES = schema.ROW_GROUP_ROWS


@dataclass(frozen=True, kw_only=True)
class Episode:
    """A sound episode and what is known of it; ``index`` is its own in its source, ``timestamps`` (T,) float32 s."""

    index: int
    task: str
    facts: EpisodeFacts
    timestamps: np.ndarray[Any, Any]


class EpisodeTables:
    """Tables ``frames``, written as episodes come, and ``episodes``, kept until the end."""

    def __init__(self, frames: TableWriter, *, before: Dataset | None, iteration: int) -> None:
        """Start with what was imported before.

        Args:
            frames: Where table ``frames`` goes.
            before: The dataset whose episodes come first.
            iteration: Iteration of the episodes to be added.
        """
        self._writer = frames
        self._iteration = iteration
        self._before = schema.TABLES["episodes"].empty_table() if before is None else before.episodes
        self._uncopied = before
        self._lengths: list[int] = []
        self._tasks: list[str] = []
        self._outcomes: list[str] = []
        self._kinds: list[str] = []
        self._modes: Counter[str] = Counter()
        self._early: dict[int, Episode] = {}  # data files need not hold episodes in the order of their numbers
        self._block: list[Episode] = []
        self._block_frames = 0

    def _copy(self) -> None:
        """Copy the frames imported before; not sooner than an added episode is known to be good."""
        before, self._uncopied = self._uncopied, None
        if before is None:
            return
        with before.frame_blocks() as frames:
            for block in episode_blocks(before.starts):
                rows = frames.read(int(before.starts[block.start]), int(before.starts[block.stop]))
                self._count(rows)
                self._writer.add(rows)

    def _count(self, frames: pa.Table) -> None:
        for found in pc.value_counts(frames.column("control_mode")).to_pylist():
            self._modes[found["values"]] += found["counts"]

    @property
    def num_added(self) -> int:
        """How many episodes were added and had their turn."""
        return len(self._lengths)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Tasks of the added episodes, each once, in order of appearance."""
        return tuple(dict.fromkeys(self._tasks))

    def add(self, episode: Episode) -> None:
        """Add an episode; one whose turn has not come waits in memory."""
        self._early[episode.index] = episode
        while (following := self._early.pop(self.num_added, None)) is not None:
            self._append(following)

    def _append(self, episode: Episode) -> None:
        self._lengths.append(len(episode.timestamps))
        self._tasks.append(episode.task)
        self._outcomes.append(episode.facts.outcome)
        self._kinds.append(episode.facts.kind)
        self._block.append(episode)
        self._block_frames += len(episode.timestamps)
        if self._block_frames >= BLOCK_FRAMES:
            self._flush()

    def _flush(self) -> None:
        self._copy()
        lengths = self._lengths[self.num_added - len(self._block) :]
        first = self._before.num_rows + self.num_added - len(self._block)
        columns = {
            "episode_index": np.repeat(first + np.arange(len(lengths)), lengths),
            "frame_index": np.concatenate([np.arange(length) for length in lengths]),
            "timestamp": np.concatenate([episode.timestamps for episode in self._block]),
            "control_mode": np.concatenate([episode.facts.control_modes for episode in self._block]),
        }
        frames = schema.as_table("frames", columns)
        self._count(frames)
        self._writer.add(frames)
        self._block, self._block_frames = [], 0

    def finish(self) -> pa.Table:
        """Write the last frames and return table ``episodes``."""
        self._copy()
        if self._block:
            self._flush()
        added = {
            "episode_index": self._before.num_rows + np.arange(self.num_added),
            "length": self._lengths,
            "task": self._tasks,
            "outcome": self._outcomes,
            "kind": self._kinds,
            "iteration": np.full(self.num_added, self._iteration),
        }
        return pa.concat_tables([self._before, schema.as_table("episodes", added)])

    def measure(self, episodes: pa.Table) -> dict[str, Any]:
        """Count episodes by kind, outcome and iteration, and frames by control mode."""
        pairs = zip(episodes.column("kind").to_pylist(), episodes.column("outcome").to_pylist(), strict=True)
        return {
            "episodes_by_kind_and_outcome": _counts([" ".join(pair) for pair in pairs]),
            "episodes_by_iteration": _counts(episodes.column("iteration").to_pylist()),
            "frames_by_control_mode": dict(sorted(self._modes.items())),
        }


def _counts(values: Sequence[Any]) -> dict[str, int]:
    return {str(value): count for value, count in sorted(Counter(values).items())}
