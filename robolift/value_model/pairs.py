"""Which frame a frame is compared with: another of the same episode, each equally likely.

kai0 draws one comparison frame for each frame it trains on, and learns the progress made between the two
(``AdvantageLerobotDataset``). Unlike there, the draw is a function of seed, step and place in the batch alone: the same
for any number of processes, and the same again after a resume.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

TRAINING, VALIDATION = 0x70616972, 0x68656C64
"""Keep the streams apart from each other and from those of sampler and augmentation, which start from the seed too."""


@dataclass(frozen=True, kw_only=True)
class AdvantagePairs:
    """Draws comparison frames.

    An episode of one frame has no other: its frame is compared with itself, and the progress between the two is 0. So
    every frame can be trained on, and an epoch holds each exactly once.

    Attributes:
        starts: (E + 1,) first row of each episode.
        seed: Seed of all draws.
    """

    starts: np.ndarray
    seed: int

    def draw(self, step: int, rows: np.ndarray) -> np.ndarray:
        """Return a comparison row for each of the (B,) rows of global batch ``step``, (B,) int64."""
        return self._others(np.random.default_rng([self.seed, step, TRAINING]), rows)

    def fixed(self, rows: np.ndarray) -> np.ndarray:
        """Return the comparison rows of a held-out set, always the same ones."""
        return self._others(np.random.default_rng([self.seed, len(rows), VALIDATION]), rows)

    def _others(self, rng: np.random.Generator, rows: np.ndarray) -> np.ndarray:
        episode = np.searchsorted(self.starts, rows, side="right") - 1
        first = self.starts[episode]
        length = self.starts[episode + 1] - first
        # One of the T - 1 others, counted without the frame itself.
        other = rng.integers(0, np.maximum(length - 1, 1))
        other += other >= rows - first
        return np.asarray(np.where(length > 1, first + other, rows), np.int64)
