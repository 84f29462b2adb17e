"""What makes items in the tests of the loader; other processes import it."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from robolift.errors import DataError


class Item(NamedTuple):
    step: int
    rows: np.ndarray
    empty: np.ndarray
    process: int


@dataclass(frozen=True)
class Squares:
    """Item of a step: a few rows of a table, squared.

    Attributes:
        table: (N, 3) float64.
        wrong: Step that has no data.
        broken: Step whose item pickles, but not back.
        unpicklable: Step whose item does not pickle.
        deadly: Step at which the process is killed.
        slow: Step at which it sleeps for minutes, after it has said so by a file.
        said: That file.
    """

    table: np.ndarray
    wrong: int = -1
    broken: int = -1
    unpicklable: int = -1
    deadly: int = -1
    slow: int = -1
    said: Path = Path("/nonexistent")

    def __call__(self, step: int) -> Any:
        if step == self.wrong:
            raise DataError("no such row", where=f"step {step}", mend="add it")
        if step == self.broken:
            return Broken()
        if step == self.unpicklable:
            return lambda: step
        if step == self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        if step == self.slow:
            self.said.with_suffix(".partial").write_text(str(os.getpid()))
            self.said.with_suffix(".partial").rename(self.said)
            time.sleep(600)
        rows = np.arange(step, step + 4) % len(self.table)
        return Item(step, self.table[rows] ** 2, np.empty((0, 2), np.float32), os.getpid())


class Broken:
    """Pickles, but not back."""

    def __reduce__(self) -> Any:
        return fail, ()

    def __call__(self, step: int) -> int:
        return step


def fail() -> None:
    raise FileNotFoundError("the table is gone")
