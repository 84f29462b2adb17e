"""Memory that a process has freed: used again by stages, returned by one that predicts."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys

import pytest

from robolift.stages.stage import Inputs

BLOCKS, BLOCK_BYTES = 10, 48 << 20
NO_LARGE_PAGES = 41
"""PR_SET_THP_DISABLE of prctl.h."""
PAGES = BLOCKS * BLOCK_BYTES // os.sysconf("SC_PAGE_SIZE")
PROGRAM = f"""
import ctypes, resource, sys
from robolift import memory
for name in sys.argv[1:]:
    getattr(memory, name)()
ctypes.CDLL(None).prctl({NO_LARGE_PAGES}, 1, 0, 0, 0)
bytearray({BLOCK_BYTES})
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range({BLOCKS}):
    bytearray({BLOCK_BYTES})
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(faults)
"""


def given_out(*calls: str, **variables: str) -> int:
    """Return how many pages the system gave to a process that frees each block before the next."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    words = [sys.executable, "-c", PROGRAM, *calls]
    return int(subprocess.run(words, env=kept | variables, capture_output=True, text=True, check=True).stdout)


def test_by_default_each_large_block_is_given_out_anew() -> None:
    assert given_out() >= PAGES


def test_a_stage_uses_freed_blocks_again() -> None:
    assert given_out("keep_freed_blocks") < PAGES / 100


@pytest.mark.parametrize("calls", [("return_large_blocks",), ("keep_freed_blocks", "return_large_blocks")])
def test_a_process_that_predicts_returns_large_blocks_whatever_was_set_before(calls: tuple[str, ...]) -> None:
    assert given_out(*calls) >= PAGES


def test_what_the_environment_says_stays() -> None:
    assert given_out("keep_freed_blocks", MALLOC_MMAP_THRESHOLD_="1000000") >= PAGES


@pytest.mark.parametrize("name", ["label_returns", "merge_values", "label_advantage", "write_report"])
def test_stages_on_tables_keep_memory_before_they_work(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class KeptError(Exception):
        pass

    def keep() -> None:
        raise KeptError

    stage = importlib.import_module(f"robolift.stages.{name}")
    monkeypatch.setattr(stage, "keep_freed_blocks", keep)
    with pytest.raises(KeptError):
        stage.run(stage.Config(), Inputs(), None)
