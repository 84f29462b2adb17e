"""Real numbers as whole numbers that order as they do, parts of whose bits can be counted."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

HALF = 16
"""Bits of the upper and of the lower half of a single-precision number."""
SIGN = np.uint32(1 << 31)
DOUBLE_SIGN = np.uint64(1 << 63)


def order_keys(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint32]:
    """Return integers that order as float32 ``values`` do, of the same shape; 0 and -0 have the same."""
    bits = (values + np.float32(0)).view(np.uint32)  # -0 + 0 is 0
    return np.where(bits & SIGN, ~bits, bits | SIGN)


def from_order_keys(keys: npt.NDArray[np.uint32]) -> npt.NDArray[np.float32]:
    """Return the float32 values of :func:`order_keys`."""
    return np.where(keys & SIGN, keys ^ SIGN, ~keys).astype(np.uint32).view(np.float32)


def double_order_keys(values: npt.NDArray[np.float64]) -> npt.NDArray[np.uint64]:
    """Return integers that order as float64 ``values`` do, of the same shape; 0 and -0 have the same."""
    bits = (values + 0.0).view(np.uint64)
    return np.where(bits & DOUBLE_SIGN, ~bits, bits | DOUBLE_SIGN)


def from_double_order_keys(keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.float64]:
    """Return the float64 values of :func:`double_order_keys`."""
    return np.where(keys & DOUBLE_SIGN, keys ^ DOUBLE_SIGN, ~keys).astype(np.uint64).view(np.float64)
