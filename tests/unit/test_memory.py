"""Memory that a process has freed: used again by stages, returned by one that predicts."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

BLOCKS, BLOCK_BYTES = 10, 48 << 20
NO_LARGE_PAGES = 41
"""PR_SET_THP_DISABLE of prctl.h."""
PAGES = BLOCKS * BLOCK_BYTES // os.sysconf("SC_PAGE_SIZE")
PROGRAM = f"""
import ctypes, json, resource, sys
import pyarrow as pa
from robolift import memory
for name in sys.argv[1:]:
    getattr(memory, name)()
ctypes.CDLL(None).prctl({NO_LARGE_PAGES}, 1, 0, 0, 0)
bytearray({BLOCK_BYTES})
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range({BLOCKS}):
    bytearray({BLOCK_BYTES})
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(json.dumps([faults, pa.default_memory_pool().backend_name]))
"""


def given_out(*calls: str, **variables: str) -> tuple[int, str]:
    """Return how many pages the system gave to a process that frees each block, and which allocator Arrow had."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_") and k != "ARROW_DEFAULT_MEMORY_POOL"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *calls], env=kept | variables, capture_output=True, text=True, check=True
    )
    faults, pool = json.loads(done.stdout)
    return faults, pool


def test_by_default_each_large_block_is_given_out_anew() -> None:
    faults, pool = given_out()
    assert (faults >= PAGES, pool) == (True, "mimalloc")


def test_a_stage_uses_freed_blocks_again_for_arrays_and_tables_alike() -> None:
    faults, pool = given_out("keep_freed_blocks")
    assert faults < PAGES / 100
    assert pool == "system"


@pytest.mark.parametrize("calls", [("return_large_blocks",), ("keep_freed_blocks", "return_large_blocks")])
def test_a_process_that_predicts_returns_large_blocks_whatever_was_set_before(calls: tuple[str, ...]) -> None:
    assert given_out(*calls)[0] >= PAGES


def test_what_the_environment_says_of_either_allocator_stays() -> None:
    assert given_out("keep_freed_blocks", ARROW_DEFAULT_MEMORY_POOL="jemalloc")[1] == "jemalloc"
    assert given_out("keep_freed_blocks", MALLOC_MMAP_THRESHOLD_="1000000")[0] >= PAGES
