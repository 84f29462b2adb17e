"""Reading values off distributions: 201 atoms of a million frames, which are 0.8 GB of logits.

* ours: `robolift.value_model.heads.expected`, the value that held-out measures and prediction read, in blocks of rows
  that stay in a core's cache; `spread` adds the standard deviation, as prediction stores it.
* whole: PyTorch's `softmax(logits) @ support` on the whole array, how value models are usually read.
* whole spread: the same and the deviation around the mean.
* read: the limit, every logit looked at once.

All work on the same logits in memory, on one thread. The error is that of ours against float64, of every frame;
beyond_mb is what a way needs at its peak besides the logits and what the process had before.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.harness import Benchmark, Goal, Way
from benchmarks.taken import MB, own_peak_bytes
from robolift.value_model.heads import atoms, expectation, expected

FRAMES, ATOMS = 1_000_000, 201
LOGITS = "logits.npy"
CHECKED = 20_000


def prepare(folder: Path) -> None:
    """Write logits as a trained head gives them, each row with a peak, and check that all ways agree."""
    torch.manual_seed(0)
    support, logits = atoms(ATOMS, -1.0, 0.0), torch.randn(FRAMES, ATOMS)
    peak = torch.rand(FRAMES, 1) - 1
    for start in range(0, FRAMES, CHECKED):
        block = slice(start, start + CHECKED)
        logits[block] -= ((support - peak[block]) / 0.2).square_()
    np.save(folder / LOGITS, logits.numpy())
    few = logits[:CHECKED]
    for value in (expected(few, support), expectation(few, support)[0], whole_value(few, support)[0]):
        assert (value - exact(few, support)).abs().max() <= 1e-6


def exact(logits: torch.Tensor, support: torch.Tensor) -> torch.Tensor:
    """Return the value in float64."""
    return torch.softmax(logits.double(), dim=-1) @ support.double()


def whole_value(logits: torch.Tensor, support: torch.Tensor) -> tuple[torch.Tensor]:
    """Return the value by PyTorch on the whole array."""
    return (torch.softmax(logits, dim=-1) @ support,)


def whole_spread_of(logits: torch.Tensor, support: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return value and deviation by PyTorch on the whole array."""
    probability = torch.softmax(logits, dim=-1)
    mean = probability @ support
    return mean, (probability * (support - mean[:, None]).square()).sum(-1).sqrt()


def measured(
    folder: Path, read: Callable[[torch.Tensor, torch.Tensor], Any], *, check: bool = False
) -> dict[str, float]:
    """Return CPU time, memory and, if asked, error of reading the values of logits that are in memory."""
    torch.set_num_threads(1)
    logits, support = torch.from_numpy(np.load(folder / LOGITS)), atoms(ATOMS, -1.0, 0.0)
    read(logits[:CHECKED], support)
    before, start = own_peak_bytes(), time.process_time()
    found = read(logits, support)[0]
    cpu_s, beyond = time.process_time() - start, own_peak_bytes() - before
    told = {"cpu_s": cpu_s, "beyond_mb": beyond / MB}
    if not check:
        return told
    pieces = zip(found.split(CHECKED), logits.split(CHECKED), strict=True)
    error = max((value - exact(some, support)).abs().max().item() for value, some in pieces)
    return {**told, "error": error}


def ours(folder: Path) -> dict[str, float]:
    """Read values in blocks."""
    return measured(folder, lambda logits, support: (expected(logits, support),), check=True)


def spread(folder: Path) -> dict[str, float]:
    """Read values and deviations in blocks."""
    return measured(folder, expectation, check=True)


def whole(folder: Path) -> dict[str, float]:
    """Read values of the whole array."""
    return measured(folder, whole_value)


def whole_spread(folder: Path) -> dict[str, float]:
    """Read values and deviations of the whole array."""
    return measured(folder, whole_spread_of)


def read(folder: Path) -> dict[str, float]:
    """Look at every logit."""
    numbers = measured(folder, lambda logits, _: (logits.sum(dim=-1),))
    return {"cpu_s": numbers["cpu_s"]}


BENCHMARK = Benchmark(
    name="values",
    prepare=prepare,
    ways=(
        Way("ours", ours),
        Way("whole", whole),
        Way("spread", spread),
        Way("whole spread", whole_spread),
        Way("read", read),
    ),
    goals=(
        Goal("CPU of the whole array / ours", over=("whole", "ours"), of="cpu_s", at_least=3.0),
        Goal("the same with the deviation", over=("whole spread", "spread"), of="cpu_s", at_least=3.0),
        Goal("greatest error", over=("ours",), of="error", at_most=1e-6),
        Goal("memory besides the logits, MB", over=("ours",), of="beyond_mb", at_most=16),
        Goal("the same with the deviation, MB", over=("spread",), of="beyond_mb", at_most=16),
    ),
)
