"""Principal directions of vectors, such as embeddings, the same wherever they are worked out."""

from __future__ import annotations

import numpy as np


def principal_directions(centred: np.ndarray, count: int) -> np.ndarray:
    """Return the directions of largest variance, (width, at most ``count``), as unit columns.

    There are fewer than ``count`` where the vectors have a lower rank. The sign of a direction is arbitrary, and
    libraries differ in it; here its largest entry is positive.

    Args:
        centred: (n, width), each column with mean 0; width may be 0.
        count: How many are wanted.
    """
    if centred.shape[1] == 0 or count == 0:
        return np.zeros((centred.shape[1], 0))
    _, sizes, vectors = np.linalg.svd(centred, full_matrices=False)
    rank = int((sizes > 1e-10 * max(float(sizes[0]), 1e-300)).sum())
    found = vectors[: min(count, rank)]
    largest = np.abs(found).argmax(axis=1)
    return np.asarray((found * np.sign(found[np.arange(len(found)), largest])[:, None]).T)
