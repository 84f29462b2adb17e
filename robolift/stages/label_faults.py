"""Checks of frames that come in blocks: each counts the frames that fail it, and the first of them is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from robolift.errors import DataError
from robolift.labeling.returns import BoolArray, FloatArray


@dataclass(kw_only=True)
class Fault:
    """What a check found.

    Attributes:
        count: Frames that fail it.
        seen: Frames that it looked at.
        where: The first that fails.
        value: What is there.
    """

    count: int = 0
    seen: int = 0
    where: str = ""
    value: Any = None


class Faults:
    """All checks, in the order in which they are made of a block; the first that some frame fails ends the work."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[Fault, Callable[[Fault], DataError], bool]] = {}

    def check(
        self,
        name: str,
        values: FloatArray,
        *,
        looked_at: BoolArray,
        wrong: BoolArray,
        where: Callable[[int], str],
        tell: Callable[[Fault], DataError],
        only_if_all: bool = False,
    ) -> None:
        """Make a check of one more block of n frames.

        Args:
            name: Which check.
            values: What is checked, (n,).
            looked_at: Frames that it is about, (n,).
            wrong: Values that fail it, (n,).
            where: Names a frame of the block by its row.
            tell: What the complaint is.
            only_if_all: Whether it is one only if every frame of all blocks fails.
        """
        fault = self._found.setdefault(name, (Fault(), tell, only_if_all))[0]
        fault.seen += int(looked_at.sum())
        rows = np.flatnonzero(looked_at & wrong)
        if len(rows) and not fault.count:
            fault.where, fault.value = where(int(rows[0])), values[rows[0]]
        fault.count += len(rows)

    @property
    def found(self) -> bool:
        """Whether a frame failed a check that every frame has to pass."""
        return any(fault.count and not only_if_all for fault, _, only_if_all in self._found.values())

    def complain(self) -> None:
        """End the work if a check failed.

        Raises:
            DataError: By the first such check.
        """
        for fault, tell, only_if_all in self._found.values():
            if fault.count and (not only_if_all or fault.count == fault.seen):
                raise tell(fault)
