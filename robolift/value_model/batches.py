"""What a step of value training reads: NumPy arrays that are functions of recipe and step. Needs no PyTorch.

Shape letters: B rows of a part, P frames of a value (1, or 2 that are compared), K cameras, S state, T action horizon,
A action.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from robolift.data.frames import Frames
from robolift.training.sampler import EpochSampler
from robolift.value_model import augment
from robolift.value_model.data import TrainingData
from robolift.value_model.pairs import AdvantagePairs
from robolift.value_model.recipe import Recipe


class Batch(NamedTuple):
    """A part of one process's rows of a step.

    Attributes:
        images: (B * P, K, H, W, 3) uint8, shifted; None without cameras.
        gain: (B * P, K) float32 factor on their brightness.
        state: (B, P, S) float32 normalised, with noise.
        tasks: (B,) int64.
        target: (B,) float32 what is learned.
        actions: (B, T, A) float32 normalised; None without an action head.
        real: (B, T) bool, whether an action is inside its episode; None likewise.
    """

    images: np.ndarray | None
    gain: np.ndarray
    state: np.ndarray
    tasks: np.ndarray
    target: np.ndarray
    actions: np.ndarray | None
    real: np.ndarray | None


@dataclass(kw_only=True)
class ValueBatches:
    """Makes the batches of any step.

    The whole batch is drawn in every process, so what is trained on does not depend on their number.

    Attributes:
        data: Everything but images.
        images: (N, K, H, W, 3) uint8 of all frames by row, None without cameras.
        recipe: Order, augmentation, batch size.
        num_frames: P.
        action_horizon: T, 0 without an action head.
        rank: This process among ``num_processes``; it gets its own part of each batch.
        num_processes: How many share a batch.
    """

    data: TrainingData
    images: Frames | None
    recipe: Recipe
    num_frames: int
    action_horizon: int
    rank: int
    num_processes: int
    sampler: EpochSampler = field(init=False)
    pairs: AdvantagePairs = field(init=False)

    def __post_init__(self) -> None:
        self.sampler = EpochSampler(
            num_rows=len(self.data.train_rows),
            batch_size=self.recipe.batch_size,
            seed=self.recipe.seed,
            block=self.recipe.shuffle_block,
            window=self.recipe.shuffle_window,
        )
        self.pairs = AdvantagePairs(starts=self.data.starts, seed=self.recipe.seed)

    def __call__(self, step: int) -> tuple[Batch, ...]:
        """Return the parts that this process computes in ``step``, one after the other."""
        frames = self.frames(step)
        draws = augment.draw(
            self.recipe,
            step,
            num_cameras=len(self.data.cameras),
            state_dim=self.data.states.shape[1],
            num_frames=self.num_frames,
        ).part(self._mine)
        size = len(frames) // self.recipe.accumulate
        parts = [slice(start, start + size) for start in range(0, len(frames), size)]
        return tuple(self._batch(frames[part], draws.part(part)) for part in parts)

    @property
    def _mine(self) -> slice:
        """Return which places of the whole batch are this process's."""
        share = self.recipe.batch_size // self.num_processes
        return slice(self.rank * share, (self.rank + 1) * share)

    def frames(self, step: int) -> np.ndarray:
        """Return this process's rows of ``step``, (B, P): the comparison frame before the frame if P is 2."""
        rows = self.data.train_rows[self.sampler.batch(step)]
        frames = [rows] if self.num_frames == 1 else [self.pairs.draw(step, rows), rows]
        return np.stack(frames, axis=1)[self._mine]

    def _batch(self, frames: np.ndarray, draws: augment.Draws) -> Batch:
        rows = frames[:, -1]
        shift, gain = (np.repeat(drawn, self.num_frames, axis=0) for drawn in (draws.shift, draws.gain))
        images = None if self.images is None else augment.shifted(self.images, frames.reshape(-1), shift)
        actions, real = self.data.action_chunk(rows, self.action_horizon) if self.action_horizon else (None, None)
        return Batch(
            images=images,
            gain=gain,
            state=self.data.states[frames] + draws.noise,
            tasks=self.data.tasks[rows],
            target=self.data.value_targets(frames),
            actions=actions,
            real=real,
        )
