"""Single-precision numbers as whole numbers that order as they do, halves of which can be counted."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

HALF = 16
"""Bits of the upper and of the lower half."""
SIGN = np.uint32(1 << 31)


def order_keys(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint32]:
    """Return integers that order as float32 ``values`` do, of the same shape; 0 and -0 have the same."""
    bits = (values + np.float32(0)).view(np.uint32)  # -0 + 0 is 0
    return np.where(bits & SIGN, ~bits, bits | SIGN)


def from_order_keys(keys: npt.NDArray[np.uint32]) -> npt.NDArray[np.float32]:
    """Return the float32 values of :func:`order_keys`."""
    return np.where(keys & SIGN, keys ^ SIGN, ~keys).astype(np.uint32).view(np.float32)
