"""Values of frames whose features arrive batch by batch; memory holds a window of the last ones, not an episode.

A value of one frame, or of an episode's first frame and this one, is read as soon as the frame is there; what happens
in the next frames is read when the last of those is. Row r of the dataset always stands at place r % batch_size of a
batch of exactly batch_size rows. A network computes the rows of a batch apart from one another, so whatever the kernels
of a batch shape do, each row gets the same bits whichever rows stand beside it: from one shard or from many.
"""

from __future__ import annotations

from collections import deque

import numpy as np
import torch

from robolift.data.decoding import Batch
from robolift.value_model.network import ValueNetwork


class Window:
    """Features of the last rows, and of the first row of the episode at hand, on the device where they are computed."""

    def __init__(self, num_batches: int, batch_size: int, num_features: int, device: torch.device) -> None:
        """Hold nothing yet, but take the memory.

        Args:
            num_batches: Batches to hold.
            batch_size: Rows of each, B.
            num_features: F.
            device: Where they are.
        """
        self._batch_size, self._capacity = batch_size, num_batches * batch_size
        # The last row is that of an episode which began before the last batch.
        self._kept = torch.zeros(self._capacity + 1, num_features, device=device)

    def add(self, batch: Batch, features: torch.Tensor) -> None:
        """Take the (B, F) features of a batch, in place of the oldest."""
        start = batch.number * self._batch_size % self._capacity
        self._kept[start : start + self._batch_size] = features

    def at(self, rows: np.ndarray) -> torch.Tensor:
        """Return the (n, F) features of (n,) of the last rows."""
        return self._take(rows % self._capacity)

    def first_of_episode(self, begin: np.ndarray, batch: Batch) -> torch.Tensor:
        """Return (B, F) features of the rows where the episodes of the last batch begin, in or before it.

        Args:
            begin: (B,) these rows, one for each place.
            batch: The last batch.
        """
        index = np.where(begin < batch.rows.start, self._capacity, begin % self._capacity)
        found = self._take(index)
        self._kept[-1] = found[batch.places.stop - 1]
        return found

    def _take(self, index: np.ndarray) -> torch.Tensor:
        return self._kept.index_select(0, torch.from_numpy(index).to(self._kept.device))


class ValueReader:
    """Reads the values of consecutive episodes as features arrive.

    Attributes:
        value: (n,) float32 of each row; complete up to the last batch that was given.
        spread: (n,) float32, standard deviation.
        relative: (n,) float32, what a two-frame model sees happen in the next ``lookahead`` frames; None for others.
    """

    def __init__(
        self,
        model: ValueNetwork,
        *,
        starts: np.ndarray,
        states: np.ndarray,
        tasks: np.ndarray,
        batch_size: int,
        lookahead: int,
        precision: str,
    ) -> None:
        """Have read nothing yet.

        Args:
            model: Ready to predict.
            starts: (E + 1,) rows where the episodes begin, and where the last one ends.
            states: (n, S) normalised, of the episodes' rows.
            tasks: (n,) task index.
            batch_size: Rows of every batch, in use or not.
            lookahead: Frames ahead that a frame is compared with.
            precision: Arithmetic of towers.
        """
        self._model, self._precision = model, precision
        self._starts, self._states, self._tasks = starts, states, tasks
        self._batch_size, self._lookahead = batch_size, lookahead
        self._first = int(starts[0])
        self.value, self.spread = np.empty(len(tasks), np.float32), np.empty(len(tasks), np.float32)
        self.relative: np.ndarray | None = None
        if model.head.num_frames == 2:
            self.relative = np.empty(len(tasks), np.float32)
            self._waiting: deque[Batch] = deque()
            # A batch waits for at most this many frames, then it is read with the batch that brings the last of them.
            ahead = min(lookahead, int(np.diff(starts).max()))
            self._window = Window(-(-ahead // batch_size) + 1, batch_size, model.num_features, model.device)

    def add(self, batch: Batch, features: torch.Tensor) -> None:
        """Read what the (B, F) features of the next batch allow to be read."""
        rows, begin, _ = self._rows(batch)
        if self.relative is None:
            self._put(batch, *self._read(rows[:, None], features[:, None]))
            return
        self._window.add(batch, features)
        pair = torch.stack([self._window.first_of_episode(begin, batch), features], dim=1)
        value, spread = self._read(np.stack([begin, rows], axis=1), pair)
        self._put(batch, np.where(rows == begin, np.float32(0), value), spread)
        self._waiting.append(batch)
        while self._waiting and self._rows(self._waiting[0])[2].max() < batch.rows.stop:
            self._compare(self._waiting.popleft())

    def _compare(self, batch: Batch) -> None:
        """Read what happens in the next frames of each row: f(t, m) with m = min(t + lookahead, T - 1)."""
        assert self.relative is not None
        rows, _, later = self._rows(batch)
        made, _ = self._read(
            np.stack([rows, later], axis=1), torch.stack([self._window.at(rows), self._window.at(later)], dim=1)
        )
        self.relative[self._here(batch)] = over_lookahead(made, later - rows, self._lookahead)[batch.places]

    def _rows(self, batch: Batch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return (B,) the row at each place, where its episode begins, and the row it is compared with.

        A place that is not in use has a row of the batch all the same; what is read there goes nowhere.
        """
        start = batch.number * self._batch_size
        rows = np.arange(start, start + self._batch_size).clip(batch.rows.start, batch.rows.stop - 1)
        episode = np.searchsorted(self._starts, rows, side="right") - 1
        return rows, self._starts[episode], np.minimum(rows + self._lookahead, self._starts[episode + 1] - 1)

    def _read(self, rows: np.ndarray, features: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Return value and standard deviation, (B,) each, of (B, P) rows with their (B, P, F) features."""
        state, task = self._states[rows - self._first], self._tasks[rows[:, -1] - self._first]
        with self._model.autocast(self._precision):
            logits = self._model.value_logits(
                features, *(torch.from_numpy(x).to(self._model.device) for x in (state, task))
            )
        value, spread = self._model.head.read(logits)
        return value.cpu().numpy(), spread.cpu().numpy()

    def _put(self, batch: Batch, value: np.ndarray, spread: np.ndarray) -> None:
        self.value[self._here(batch)] = value[batch.places]
        self.spread[self._here(batch)] = spread[batch.places]

    def _here(self, batch: Batch) -> slice:
        return slice(batch.rows.start - self._first, batch.rows.stop - self._first)


def over_lookahead(made: np.ndarray, gap: np.ndarray, lookahead: int) -> np.ndarray:
    """Return made * lookahead / gap, clipped to [-1, 1]; 0 where the gap is 0, in the last frame of an episode.

    kai0's ``relative_advantage``.

    Args:
        made: (T,) progress made over the gap.
        gap: (T,) frames, at most ``lookahead``; fewer near the end of the episode.
        lookahead: Frames that the result speaks of.

    Returns:
        (T,) float32.
    """
    scaled = made.astype(np.float64) * lookahead / np.maximum(gap, 1)
    return np.where(gap > 0, np.clip(scaled, -1, 1), 0).astype(np.float32)
