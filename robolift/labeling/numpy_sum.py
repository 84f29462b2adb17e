"""The sum of float32 numbers that come block by block, as NumPy has it of one array in float64, to the bit."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

NUMPY_BUFFER = 8192
"""NumPy converts so many numbers at a time, and adds up the sums of those in order."""


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
