"""How numbers are spread, drawn with characters that every terminal has."""

from __future__ import annotations

import numpy as np

from robolift.labeling.returns import FloatArray

BAR = "#"


class Histogram:
    """Counts numbers that come block by block in bins of equal width."""

    def __init__(self, low: float, high: float, *, num_bins: int = 20) -> None:
        """Lay out the bins.

        Args:
            low: Least of the numbers.
            high: Greatest of them.
            num_bins: Bins from one to the other; a single one where all are equal.
        """
        self._equal = low == high
        self._edges = np.array([low, high]) if self._equal else np.linspace(low, high, num_bins + 1)
        self._counts = np.zeros(len(self._edges) - 1, np.int64)

    def add(self, values: FloatArray) -> None:
        """Count some more numbers, (n,)."""
        self._counts += len(values) if self._equal else np.histogram(values, bins=self._edges)[0]

    def lines(self, *, cut: float | None = None, width: int = 50) -> list[str]:
        """Return one line a bin: its lower edge, a bar, how many numbers it holds; the bin of the cut says so.

        Args:
            cut: A number to mark.
            width: Characters of the longest bar; a bin that is not empty has one at least.
        """
        edges, counts = self._edges, self._counts
        bars = np.ceil(counts * width / counts.max()).astype(int)
        labels = [f"{edge:+.4g}" for edge in edges[:-1]]
        column = max(len(label) for label in labels)
        at = None if cut is None else int(np.clip(np.searchsorted(edges, cut, side="right") - 1, 0, len(counts) - 1))
        lines = []
        for place, (label, bar, count) in enumerate(zip(labels, bars.tolist(), counts.tolist(), strict=True)):
            mark = f"  <- cut {cut:.6g}" if place == at else ""
            lines.append(f"{label:>{column}} |{BAR * bar:<{width}} {count:,}{mark}")
        return lines
