"""Which rows each step trains on: a pure function of seed and step, so resuming needs no sampler state."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from robolift.training.permutation import KeyedPermutation

BLOCKS = 0x626C6B73
"""Keeps the order of blocks apart from the orders of rows, which are drawn from the seed too."""


@functools.lru_cache(maxsize=2)
def _permutation(key: tuple[int, ...], num_rows: int) -> np.ndarray:
    return np.random.default_rng(key).permutation(num_rows)


@dataclass(frozen=True, kw_only=True)
class EpochSampler:
    """Shuffled epochs laid end to end and cut into global batches; each epoch holds each row exactly once.

    A batch may begin in one epoch and end in the next, so no row is dropped. The global batch doesn't depend on how
    many processes share it.

    With a ``block`` neighbouring rows stay near each other in time: an epoch takes the blocks of rows in random order
    and mixes the rows of ``window`` of them at a time. So few shards or videos are read at once, and no more than the
    rows of a window are held however many there are.

    Attributes:
        num_rows: Rows to draw from, positions 0..num_rows-1.
        batch_size: Rows of one step over all processes.
        seed: Every epoch has its own order, all derived from this.
        block: Neighbouring rows that are taken together; 0 draws every row by itself from all of them.
        window: Blocks whose rows are mixed.
    """

    num_rows: int
    batch_size: int
    seed: int
    block: int = 0
    window: int = 1

    def batch(self, step: int) -> np.ndarray:
        """Return the (batch_size,) positions of global step ``step``."""
        parts = []
        position, needed = step * self.batch_size, self.batch_size
        while needed:
            epoch, offset = divmod(position, self.num_rows)
            part = self._from(epoch, offset)[:needed]
            parts.append(part)
            position += len(part)
            needed -= len(part)
        return np.concatenate(parts)

    def _from(self, epoch: int, offset: int) -> np.ndarray:
        """Return rows of an epoch from place ``offset`` on: all that are left of it, or of a window."""
        if not self.block:
            return _permutation((self.seed, epoch), self.num_rows)[offset:]
        blocks = self._blocks(epoch)
        # The last block may be short, and every window after the one that holds it begins so much earlier.
        span, missing = self.block * self.window, blocks.size * self.block - self.num_rows
        short = blocks.place(blocks.size - 1) // self.window
        number = offset // span if offset < (short + 1) * span - missing else (offset + missing) // span
        begin = number * span - (missing if number > short else 0)
        return _window(self, epoch, number)[offset - begin :]

    def _blocks(self, epoch: int) -> KeyedPermutation:
        keys = np.random.default_rng([self.seed, epoch, BLOCKS]).integers(2**63, size=KeyedPermutation.ROUNDS)
        return KeyedPermutation(size=-(-self.num_rows // self.block), keys=tuple(keys.tolist()))

    def _mixed(self, epoch: int, number: int) -> np.ndarray:
        """Return the rows of a window of an epoch, in the order they are taken."""
        blocks = self._blocks(epoch)
        first = number * self.window
        taken = blocks.at(np.arange(first, min(first + self.window, blocks.size)))
        rows = (taken[:, None] * self.block + np.arange(self.block)).reshape(-1)
        rows = rows[rows < self.num_rows]
        return np.asarray(rows[np.random.default_rng([self.seed, epoch, BLOCKS, number]).permutation(len(rows))])


@functools.lru_cache(maxsize=2)
def _window(sampler: EpochSampler, epoch: int, number: int) -> np.ndarray:
    return sampler._mixed(epoch, number)
