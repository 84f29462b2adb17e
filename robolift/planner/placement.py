"""How much of an array lies on one device, by the rules of the two trainers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

SMALLEST_SHARDED_BYTES = 4 << 20
"""As in robolift.policy.sharding, which needs JAX; a test holds the two together."""

Cut = Callable[[Sequence[int], int, int], int]
"""(shape, bytes of an element, devices that share one copy) -> elements on a device."""


def cut_largest_axis(shape: Sequence[int], item_bytes: int, parts: int) -> int:
    """Return the elements of an array on each of ``parts`` devices, by the rule of robolift.policy.sharding.

    An array of two axes or more and at least 4 MiB is cut along its largest axis that ``parts`` divides; every other
    array is whole on each device (openpi's ``training/sharding.py``).
    """
    elements = math.prod(shape)
    small = len(shape) < 2 or elements * item_bytes < SMALLEST_SHARDED_BYTES
    if small or all(length % parts for length in shape):
        return elements
    return elements // parts


def cut_first_axis(shape: Sequence[int], item_bytes: int, parts: int) -> int:
    """Return the elements of an array on the first of ``parts`` devices, by the rule of torch's ``fully_shard``.

    Every array is cut along its first axis, and the first devices hold ceil(length / parts) of it (``torch.chunk``).
    """
    if not shape:
        return 1
    return math.ceil(shape[0] / parts) * math.prod(shape[1:])
