"""Which rows each step trains on: a pure function of seed and step, so resuming needs no sampler state."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np


@functools.lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, num_rows: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(num_rows)


@dataclass(frozen=True, kw_only=True)
class EpochSampler:
    """Shuffled epochs laid end to end and cut into global batches; each epoch holds each row exactly once.

    A batch may begin in one epoch and end in the next, so no row is dropped. The global batch doesn't depend on how
    many processes share it.

    Attributes:
        num_rows: Rows to draw from, positions 0..num_rows-1.
        batch_size: Rows of one step over all processes.
        seed: Every epoch has its own order, all derived from this.
    """

    num_rows: int
    batch_size: int
    seed: int

    def batch(self, step: int) -> np.ndarray:
        """Return the (batch_size,) positions of global step ``step``."""
        parts = []
        position, needed = step * self.batch_size, self.batch_size
        while needed:
            epoch, offset = divmod(position, self.num_rows)
            part = _permutation(self.seed, epoch, self.num_rows)[offset : offset + needed]
            parts.append(part)
            position += len(part)
            needed -= len(part)
        return np.concatenate(parts)
