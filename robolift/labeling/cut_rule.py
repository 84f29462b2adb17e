"""Where the cuts and the edges of slices lie among ascending numbers, of which only single ones need be known."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from robolift.errors import UsageError
from robolift.labeling.kai0 import kai0_cut, kai0_edges
from robolift.labeling.returns import Float64Array

At = Callable[[int], float]
"""The number at a rank, from 0, of n in ascending order."""


class Tie(enum.StrEnum):
    """What becomes of frames whose advantage equals the cut."""

    AT_LEAST = "at_least"  # all positive, so more than the share may be
    EXACT = "exact"  # round(f * n) positives; among equals the later frames by key
    KAI0_LEGACY = "kai0_legacy"  # all positive, and the cut, slices and constant groups as in kai0's script


def check_positive_fraction(positive_fraction: float) -> None:
    """Refuse a share outside (0, 1).

    Raises:
        UsageError: If it is; the message says what a percentage should have been.
    """
    if not 0 < positive_fraction < 1:
        hint = f"; write {positive_fraction / 100:g} for {positive_fraction:g} %" if 1 < positive_fraction < 100 else ""
        raise UsageError(f"positive_fraction is {positive_fraction:g}, expected a share in (0, 1){hint}")


def quantile(num: int, at: At, q: float) -> float:
    """Return the linear quantile of n numbers (NumPy's default method), robust where rounding would miscount.

    The n - ceil(q (n-1)) largest of n different numbers lie at or above it: kai0's and pistar's count at q = 1 - f.

    Args:
        num: n, at least 1.
        at: The number at a rank.
        q: In [0, 1].
    """
    position = q * (num - 1)
    whole = round(position)
    # 1 - 0.9 is not 0.1: within rounding of a whole position the number there is meant.
    if abs(position - whole) <= 1e-15 * num:
        return at(whole)
    below = int(position)
    low, high = at(below), at(below + 1)
    between = low + (position - below) * (high - low)
    # Between neighbouring floats there is no room: the quantile must still exclude the lower one.
    return between if between > low else high


@dataclass(frozen=True, kw_only=True)
class CutRule:
    """How a group of n frames is cut.

    Attributes:
        positive_fraction: f, the share to be positive, in (0, 1).
        tie: What becomes of equals; ``kai0_legacy`` takes kai0's own quantiles (:mod:`robolift.labeling.kai0`).
        num_slices: S, None for no slices.
        kai0_single: Whether kai0 computes this cut in float32, as it happens to do with task stages.
    """

    positive_fraction: float
    tie: Tie = Tie.AT_LEAST
    num_slices: int | None = None
    kai0_single: bool = False

    def __post_init__(self) -> None:
        check_positive_fraction(self.positive_fraction)
        if self.num_slices is not None and self.num_slices < 2:
            raise UsageError(f"num_slices is {self.num_slices}, expected at least 2")

    def share(self, num: int) -> int:
        """Return how many of n frames are positive under ``exact``: round(f n), half to even."""
        return round(self.positive_fraction * num)

    def cut(self, num: int, at: At) -> float:
        """Return the least advantage that is positive; infinite where none is.

        ``at_least``: the linear quantile at 1 - f; ``exact``: the number at n - round(f n).
        """
        if self.tie == Tie.EXACT:
            positives = self.share(num)
            # With no positives the cut is out of reach, for frames outside the population too.
            return at(num - positives) if positives else math.inf
        if self.tie == Tie.KAI0_LEGACY:
            return kai0_cut(num, at, self.positive_fraction, single=self.kai0_single)
        return quantile(num, at, 1 - self.positive_fraction)

    def edges(self, num: int, at: At) -> Float64Array:
        """Return the lower edges of the slices, (S,), or (0,) without slices.

        Under ``exact`` frame i of n in ascending order lies in slice floor(i S / n); else the quantiles i / S bound
        the slices, as kai0 does, where ties collapse upward.
        """
        if self.num_slices is None:
            return np.empty(0)
        numbers = range(self.num_slices)
        if self.tie == Tie.EXACT:
            first = [-(-number * num // self.num_slices) for number in numbers]
            return np.array([at(rank) if rank < num else math.inf for rank in first])
        if self.tie == Tie.KAI0_LEGACY:
            return kai0_edges(num, at, self.num_slices, single=self.kai0_single)
        return np.array([quantile(num, at, number / self.num_slices) for number in numbers])

    def ranks(self, num: int) -> list[int]:
        """Return the ranks that cut and edges ask for, and the lowest and the highest, ascending."""
        asked = {0, num - 1}

        def note(rank: int) -> float:
            asked.add(rank)
            return 0.0

        # Which ranks are asked for depends on no number, so a run with zeros tells.
        self.cut(num, note)
        self.edges(num, note)
        return sorted(asked)
