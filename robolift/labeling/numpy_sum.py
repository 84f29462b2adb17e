"""Sums of numbers that come block by block, as NumPy has them of one array, to the bit."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from robolift.labeling.returns import Float64Array

NUMPY_BUFFER = 8192
"""NumPy converts so many numbers at a time, and adds up the sums of those in order."""
PAIRWISE_LENGTH = 1 << 16


class NumpySum:
    """Adds up what ``values.sum(dtype=np.float64)`` would of all (n,) float32 numbers at once.

    Attributes:
        count: How many numbers were added.
    """

    def __init__(self) -> None:
        self.count = 0
        self._sum = 0.0
        self._rest = np.zeros(0, np.float32)

    def add(self, values: npt.NDArray[np.float32]) -> None:
        """Add some more, (n,)."""
        self.count += len(values)
        numbers = np.concatenate([self._rest, values])
        whole = len(numbers) - len(numbers) % NUMPY_BUFFER
        for chunk in numbers[:whole].reshape(-1, NUMPY_BUFFER):
            self._sum += float(chunk.sum(dtype=np.float64))
        self._rest = numbers[whole:]

    def total(self) -> float:
        """Return the sum."""
        return self._sum + float(self._rest.sum(dtype=np.float64))


def pairwise_sum(blocks: Iterable[Float64Array], count: int) -> float:
    """Return what ``values.sum()`` is of all ``count`` float64 numbers at once.

    NumPy halves an array, at a multiple of eight, until a part is short, and adds up the sums of the halves. What is at
    most :data:`PAIRWISE_LENGTH` long it is left to do itself.

    Args:
        blocks: The numbers in order, cut as you like.
        count: How many they are.
    """
    left, rest = iter(blocks), np.zeros(0)

    def take(num: int) -> Float64Array:
        nonlocal rest
        parts = [rest]
        while sum(map(len, parts)) < num:
            parts.append(next(left))
        numbers = np.concatenate(parts)
        rest = numbers[num:]
        return numbers[:num]

    def add_up(num: int) -> float:
        if num <= PAIRWISE_LENGTH:
            return float(take(num).sum())
        half = num // 2
        half -= half % 8
        return add_up(half) + add_up(num - half)

    return add_up(count)
