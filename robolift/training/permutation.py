"""A random order of any number of things that takes no memory: a keyed permutation, computed place by place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np


@dataclass(frozen=True, kw_only=True)
class KeyedPermutation:
    """A permutation of 0..size-1 given by its keys alone.

    A Feistel network permutes the numbers of 2k bits: one half is changed by a hash of the other, in turn, which can be
    undone whatever the hash is. A number that falls outside is permuted again until it is inside ("cycle walking",
    Black and Rogaway 2002); as the network has at most four times ``size`` numbers, that is soon.

    Attributes:
        size: How many numbers there are, at least 1.
        keys: One for each round, 0 to 2**63 - 1.
    """

    ROUNDS: ClassVar[int] = 8

    size: int
    keys: tuple[int, ...]

    def at(self, places: np.ndarray) -> np.ndarray:
        """Return the (n,) int64 numbers that stand at ``places`` (n,)."""
        return self._walk(np.asarray(places), self.keys)

    def place(self, number: int) -> int:
        """Return the place where ``number`` stands."""
        # Run backwards the network is itself with its halves exchanged.
        return int(self._walk(np.array([number]), self.keys[::-1], swapped=True)[0])

    def _walk(self, numbers: np.ndarray, keys: tuple[int, ...], *, swapped: bool = False) -> np.ndarray:
        bits = max((self.size - 1).bit_length() + 1, 2) // 2
        found = numbers.astype(np.uint64)
        outside = np.ones(len(found), bool)
        while outside.any():
            found[outside] = _network(found[outside], bits, keys, swapped=swapped)
            outside = found >= np.uint64(self.size)
        return found.astype(np.int64)


def _network(numbers: np.ndarray, bits: int, keys: tuple[int, ...], *, swapped: bool) -> np.ndarray:
    """Permute (n,) uint64 numbers of two halves of ``bits`` bits."""
    shift, mask = np.uint64(bits), np.uint64((1 << bits) - 1)
    high, low = numbers >> shift, numbers & mask
    if swapped:
        high, low = low, high
    for key in keys:
        high, low = low, high ^ (_mixed(low ^ np.uint64(key)) & mask)
    if swapped:
        high, low = low, high
    return np.asarray(high << shift | low)


def _mixed(numbers: np.ndarray) -> np.ndarray:
    """Return a hash of (n,) uint64 numbers: the finalizer of SplitMix64 (Steele, Lea and Flood 2014)."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(numbers ^ (numbers >> np.uint64(31)))
