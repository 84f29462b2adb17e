"""What an image encoder is."""

from __future__ import annotations

from typing import Protocol

import numpy as np


class Encoder(Protocol):
    """Turns pictures into vectors.

    Attributes:
        kind: Which sort it is, such as ``clip``.
        digest: SHA-256 of its files, empty where it has none.
        width: Length of a vector.
    """

    kind: str
    digest: str
    width: int

    def encode(self, images: np.ndarray) -> np.ndarray:
        """Return (n, width) float32 of (n, H, W, 3) uint8 RGB pictures; each depends on its picture alone."""
