"""How much of a GPU's memory JAX may take; needs no JAX."""

from __future__ import annotations

import os

FRACTION, NEWER_FRACTION = "XLA_PYTHON_CLIENT_MEM_FRACTION", "XLA_CLIENT_MEM_FRACTION"


def reserve(fraction: float) -> None:
    """Let JAX take this share of a GPU's memory at its start; it must not have started in this process.

    Args:
        fraction: In (0, 1].
    """
    # JAX refuses to start when both of its names for it are set.
    os.environ.pop(NEWER_FRACTION, None)
    os.environ[FRACTION] = repr(fraction)
