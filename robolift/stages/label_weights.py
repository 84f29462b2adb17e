"""The loss weight of each frame, in as many passes over the frames as its rule needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from robolift.labeling.advantage import progress_rise, rabc_weights_of_rise
from robolift.labeling.exact_sum import ExactSum
from robolift.labeling.numpy_sum import NumpySum
from robolift.labeling.returns import BoolArray
from robolift.stages.label_block import Block
from robolift.stages.label_config import Config, Weight
from robolift.stages.spool import Spool


class Weights:
    """Weights of all frames: :meth:`measure` each block, :meth:`settle`, and :meth:`weigh` each block."""

    def __init__(self, config: Config, folder: Path | None = None) -> None:
        """Start with no frames.

        Args:
            config: The rule.
            folder: Where the rise of progress is kept between the passes, 8 bytes a frame.
        """
        self._config = config
        self._rises = Spool(folder)
        self._rise = ExactSum()
        self._unknown = self._zeros = 0
        self._sum = NumpySum()

    def measure(self, block: Block) -> None:
        """First pass: look at the next block."""
        if self._config.weight == Weight.RABC:
            column = block.progress(self._config.weight_column)
            rise = progress_rise(column, block.starts, lookahead=self._config.lookahead)
            self._rise.add(rise[~np.isnan(rise)])
            self._unknown += int(np.isnan(column).sum())
            self._rises.add(rise)

    def settle(self) -> None:
        """Second pass, over what was kept."""
        mean = self._rise.mean() if self._rise.count else 0.0
        square = ExactSum()
        for (rise,) in self._rises.read():
            square.add((rise[~np.isnan(rise)] - mean) ** 2)
        self._spread = {"mean": mean, "variance": square.mean() if square.count else 0.0}
        self._left = self._rises.read()

    def weigh(self, paused: BoolArray) -> npt.NDArray[np.float32]:
        """Last pass: return the weights of the next block, (n,).

        Args:
            paused: Which frames are paused, (n,); under ``none`` that makes no difference.
        """
        weights = np.ones(len(paused))
        if self._config.weight == Weight.RABC:
            (rise,) = next(self._left)
            weights = rabc_weights_of_rise(rise, kappa=self._config.weight_kappa, **self._spread)
            weights[paused] = 0.0
        stored = weights.astype(np.float32)
        self._zeros += int((stored == 0).sum())
        self._sum.add(stored)
        return stored

    def facts(self) -> dict[str, Any]:
        """Return what the weights are like, once all are read."""
        return {
            "scheme": self._config.weight,
            "mean": self._sum.total() / self._sum.count,
            "zero_share": self._zeros / self._sum.count,
            "unknown_progress": self._unknown,
        }

    def close(self) -> None:
        """Give back the room on the disk."""
        self._rises.close()
