"""What a step of value training computes."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field

import numpy as np
import torch

from robolift.data.frames import Frames
from robolift.training.distributed import World
from robolift.training.sampler import EpochSampler
from robolift.value_model import augment, losses
from robolift.value_model.data import TrainingData
from robolift.value_model.evaluation import HeldOut
from robolift.value_model.network import ValueNetwork
from robolift.value_model.pairs import AdvantagePairs
from robolift.value_model.recipe import Recipe


@dataclass
class ValueObjective:
    """The head's loss, plus the error of the auxiliary action head where there is one.

    Attributes:
        model: The model being trained.
        data: Everything but images.
        images: (N, K, H, W, 3) uint8 of all frames, None without cameras.
        recipe: Weights of the losses, augmentation, batch size.
        world: This process; it computes its own part of each batch.
    """

    model: ValueNetwork
    data: TrainingData
    images: Frames | None
    recipe: Recipe
    world: World
    sampler: EpochSampler = field(init=False)
    pairs: AdvantagePairs = field(init=False)

    def __post_init__(self) -> None:
        self.sampler = EpochSampler(
            num_rows=len(self.data.train_rows), batch_size=self.recipe.batch_size, seed=self.recipe.seed
        )
        self.pairs = AdvantagePairs(starts=self.data.starts, seed=self.recipe.seed)
        self.share = self.recipe.batch_size // (self.world.size * self.recipe.accumulate)

    def _places(self, part: int) -> slice:
        """Return which places of the whole batch are this process's part."""
        start = (self.world.rank * self.recipe.accumulate + part) * self.share
        return slice(start, start + self.share)

    def frames(self, step: int, part: int = 0) -> np.ndarray:
        """Return a part of this process's rows of ``step``, (B, P): the comparison frame before the frame if P is 2.

        The whole batch is drawn in every process, so what is trained on does not depend on their number.
        """
        rows = self.data.train_rows[self.sampler.batch(step)]
        frames = [rows] if self.model.head.num_frames == 1 else [self.pairs.draw(step, rows), rows]
        return np.stack(frames, axis=1)[self._places(part)]

    def losses(self, step: int, part: int = 0) -> dict[str, torch.Tensor]:
        """Return the mean losses of a part of this process's rows of ``step``."""
        model, shape = self.model, self.model.shape
        frames = self.frames(step, part)
        count, num_frames = frames.shape
        rows = frames[:, -1]
        draws = augment.draw(
            self.recipe, step, num_cameras=shape.num_cameras, state_dim=shape.state_dim, num_frames=num_frames
        ).part(self._places(part))
        state = self._tensor(self.data.states[frames] + draws.noise)
        features = state.new_zeros(count, num_frames, 0)
        if self.images is not None:
            shift, gain = (np.repeat(drawn, num_frames, axis=0) for drawn in (draws.shift, draws.gain))
            views = self._tensor(augment.shifted(self.images, frames.reshape(-1), shift))
            with self._autocast():
                features = model.encode(views, self._tensor(gain)).view(count, num_frames, -1)
        with nullcontext() if model.compact else self._autocast():
            logits = model.value_logits(features, state, self._tensor(self.data.tasks[rows]))
        value_loss = model.head.loss_rows(logits, self._tensor(self.data.value_targets(frames))).mean()
        if not shape.action_horizon:
            return {"loss": self.recipe.value_weight * value_loss, "value_loss": value_loss}
        actions, real = self.data.action_chunk(rows, shape.action_horizon)
        guess = model.actions(features[:, -1], state[:, -1])
        action_loss = losses.action_error(guess, self._tensor(actions), self._tensor(real))
        total = self.recipe.value_weight * value_loss + self.recipe.action_weight * action_loss
        return {"loss": total, "value_loss": value_loss, "action_loss": action_loss}

    def evaluate(self) -> dict[str, float | None]:
        """Return what :class:`HeldOut` measures."""
        return HeldOut(
            model=self.model,
            data=self.data,
            images=self.images,
            pairs=self.pairs,
            world=self.world,
            num_frames=self.recipe.eval_frames,
            seed=self.recipe.seed,
            precision="float32" if self.model.compact else self.recipe.precision,
        ).measure()

    def _autocast(self) -> torch.autocast:
        return self.model.autocast(self.recipe.precision)

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.model.device)
