"""Comparisons of clips as a model learns from them: who won, with what probability, and which belong together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Ties = Literal["soft", "drop", "davidson"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparisons:
    """Answers about pairs of clips.

    Attributes:
        a: (n,) row of the first clip.
        b: (n,) row of the second clip.
        sign: (n,) 1 if the first is better, -1 if the second, 0 for a tie.
    """

    a: np.ndarray
    b: np.ndarray
    sign: np.ndarray

    @classmethod
    def of(cls, a: np.ndarray, b: np.ndarray, preference: Sequence[str]) -> Comparisons:
        """Return comparisons from the letters of preferences.parquet."""
        return cls(a=a, b=b, sign=np.array([{"A": 1, "B": -1, "tie": 0}[said] for said in preference], np.int64))

    def __len__(self) -> int:
        return len(self.a)

    def where(self, chosen: np.ndarray) -> Comparisons:
        """Return the chosen ones (a mask or rows)."""
        return Comparisons(a=self.a[chosen], b=self.b[chosen], sign=self.sign[chosen])

    def without_ties(self) -> Comparisons:
        """Return those that somebody decided."""
        return self.where(self.sign != 0)

    def targets(self, ties: Ties) -> np.ndarray:
        """Return the probabilities of A, B and tie that a model is to give, (n, 3).

        Soft: a tie is A half the time. Davidson: a tie is an answer of its own. Drop has no ties left to ask about.
        """
        decided = np.stack([self.sign > 0, self.sign < 0, np.zeros(len(self), bool)], axis=1).astype(np.float64)
        tie = [0.0, 0.0, 1.0] if ties == "davidson" else [0.5, 0.5, 0.0]
        return np.where((self.sign == 0)[:, None], tie, decided)

    def pair_codes(self) -> np.ndarray:
        """Return a number for each answer that is the same for answers about the same two clips, 0, 1, ..., (n,)."""
        low, high = np.minimum(self.a, self.b), np.maximum(self.a, self.b)
        return np.unique(np.stack([low, high]), axis=1, return_inverse=True)[1].reshape(-1)

    def bootstrap(self, rng: np.random.Generator) -> np.ndarray:
        """Return how often each answer stands in a sample of the pairs with replacement, (n,).

        Pairs are drawn, not answers, so that what several people said of a pair is in the sample or out of it.
        """
        codes = self.pair_codes()
        num = int(codes.max()) + 1
        counts = np.bincount(rng.integers(num, size=num), minlength=num)
        return np.asarray(counts[codes], np.float64)

    def leave_out(self, rng: np.random.Generator, share: float) -> np.ndarray:
        """Return 0 for the answers about a share of the pairs, at least one pair, and 1 for the others, (n,)."""
        codes = self.pair_codes()
        num = int(codes.max()) + 1
        out = rng.permutation(num)[: max(1, round(share * num))]
        return np.asarray(~np.isin(codes, out), np.float64)


def split(found: Comparisons, held_out: np.ndarray) -> tuple[Comparisons, Comparisons, int]:
    """Return the comparisons within the training clips, those within the held-out clips, and how many are of both.

    Args:
        found: All comparisons.
        held_out: (clips,) bool.
    """
    first, second = held_out[found.a], held_out[found.b]
    return found.where(~first & ~second), found.where(first & second), int((first != second).sum())
