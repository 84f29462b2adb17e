"""How a process that computes with PyTorch on a CPU keeps its memory small."""

from __future__ import annotations

import contextlib
import ctypes
import os

M_MMAP_THRESHOLD = -3
"""Of glibc's malloc.h."""
LARGE_BYTES = 1 << 20


def return_large_blocks() -> None:
    """Have this process return large blocks as soon as they are freed; call it before PyTorch is imported.

    By default glibc keeps them once it has freed one, and activations then settle between other blocks in ever new
    places: 100 to 300 MB more, from one run to the next. Returned memory has to be given out again, page by page, so
    PyTorch is asked for large pages, where the kernel has them: without, this took a fifth more CPU time.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    with contextlib.suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
