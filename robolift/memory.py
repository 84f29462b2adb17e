"""What a process does with memory that it has freed: keep it, or return it."""

from __future__ import annotations

import contextlib
import ctypes
import os

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Of glibc's malloc.h."""
KEPT_BYTES, MOST_FREE_BYTES = 128 << 20, 512 << 20
OLD_LARGEST_BYTES = 32 << 20
"""An older glibc takes no greater threshold."""
LARGE_BYTES, DEFAULT_TRIM_BYTES = 1 << 20, 128 << 10


def keep_freed_blocks() -> None:
    """Have this process use the blocks of arrays that it freed again, instead of returning them.

    A stage on tables works on blocks of some megabytes, one after the other. By default glibc returns what it thinks
    large or finds free at its end; the next block is given out by the system anew, page by page. That took up to a
    quarter of a stage's CPU time, a different part in each run. Tables have an allocator of their own, Arrow's: in one
    heap with arrays they left holes that grew with the length of a dataset.

    glibc's ``MALLOC_...`` variables are heeded where they are set.
    """
    if not any(name.startswith("MALLOC_") for name in os.environ):
        _set((M_MMAP_THRESHOLD, KEPT_BYTES), (M_TRIM_THRESHOLD, MOST_FREE_BYTES))


def return_large_blocks() -> None:
    """Have this process return large blocks as soon as they are freed; call it before PyTorch is imported.

    Otherwise activations settle between other blocks in ever new places: 100 to 300 MB more, from one run to the next.
    Returned memory has to be given out again, page by page, so PyTorch is asked for large pages, where the kernel has
    them: without, this took a fifth more CPU time.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    _set((M_MMAP_THRESHOLD, LARGE_BYTES), (M_TRIM_THRESHOLD, DEFAULT_TRIM_BYTES))


def _set(*options: tuple[int, int]) -> None:
    with contextlib.suppress(AttributeError, OSError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in options:
            if not mallopt(option, value):
                mallopt(option, min(value, OLD_LARGEST_BYTES))
