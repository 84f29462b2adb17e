"""How numbers are spread, drawn with characters that every terminal has."""

from __future__ import annotations

import numpy as np

from robolift.labeling.returns import FloatArray

BAR = "#"


def histogram_lines(values: FloatArray, *, cut: float | None = None, num_bins: int = 20, width: int = 50) -> list[str]:
    """Return one line a bin: its lower edge, a bar, how many numbers it holds; the bin of the cut says so.

    Args:
        values: Finite numbers, (n,), n >= 1.
        cut: A number to mark.
        num_bins: Bins of equal width from the least to the greatest number; one where all are equal.
        width: Characters of the longest bar; a bin that is not empty has one at least.
    """
    low, high = float(values.min()), float(values.max())
    edges = np.linspace(low, high, num_bins + 1) if high > low else np.array([low, high])
    counts = np.histogram(values, bins=edges)[0] if high > low else np.array([len(values)])
    bars = np.ceil(counts * width / counts.max()).astype(int)
    labels = [f"{edge:+.4g}" for edge in edges[:-1]]
    column = max(len(label) for label in labels)
    at = None if cut is None else int(np.clip(np.searchsorted(edges, cut, side="right") - 1, 0, len(counts) - 1))
    lines = []
    for place, (label, bar, count) in enumerate(zip(labels, bars.tolist(), counts.tolist(), strict=True)):
        mark = f"  <- cut {cut:.6g}" if place == at else ""
        lines.append(f"{label:>{column}} |{BAR * bar:<{width}} {count:,}{mark}")
    return lines
