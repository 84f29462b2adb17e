"""Where PyTorch computes, and how it gives the same bits each time."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from robolift.errors import UsageError


def device_for(name: str, local_rank: int = 0) -> torch.device:
    """Return the device of a process, set up so that the same work gives the same bits.

    Raises:
        UsageError: If it is ``cuda`` and there is none.
    """
    if name == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UsageError("device is cuda, but this machine or this build of PyTorch has none; use device: cpu")
    torch.cuda.set_device(local_rank)
    # Without these the same run twice differs in the last bits, and a resumed run from an uninterrupted one.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(mode=True)
    return torch.device("cuda", local_rank)


def check_compiler(device: str) -> None:
    """Refuse ``compile`` where PyTorch would look for a compiler in vain, minutes later.

    Args:
        device: ``cpu``, for which PyTorch writes C++, or ``cuda``, where Triton builds its launchers in C.

    Raises:
        UsageError: If there is none.
    """
    language, variable, names = ("C", "CC", ("gcc", "clang")) if device == "cuda" else ("C++", "CXX", ("g++",))
    wanted = [os.environ[variable]] if variable in os.environ else names
    if not any(map(shutil.which, wanted)):
        raise UsageError(
            f"compile on {device} needs a {language} compiler, and there is no {' or '.join(wanted)}; install one, "
            f"name another in {variable}, or set compile: false"
        )


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Compute with this many threads, since their number decides in which order floats are added."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
