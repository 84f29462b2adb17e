"""What a step of value training computes."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field

import numpy as np
import torch

from robolift.data.frames import Frames
from robolift.data.loader import Loader
from robolift.training.distributed import World
from robolift.value_model import losses
from robolift.value_model.batches import Batch, ValueBatches
from robolift.value_model.data import TrainingData
from robolift.value_model.evaluation import HeldOut
from robolift.value_model.network import ValueNetwork
from robolift.value_model.recipe import Recipe


@dataclass
class ValueObjective:
    """The head's loss, plus the error of the auxiliary action head where there is one.

    To be closed when training has ended: batches of coming steps are made meanwhile.

    Attributes:
        model: The model being trained.
        data: Everything but images.
        images: (N, K, H, W, 3) uint8 of all frames by row, None without cameras.
        recipe: Weights of the losses, augmentation, batch size.
        world: This process; it computes its own part of each batch.
        batches: What makes its batches.
    """

    model: ValueNetwork
    data: TrainingData
    images: Frames | None
    recipe: Recipe
    world: World
    batches: ValueBatches = field(init=False)

    def __post_init__(self) -> None:
        self.batches = ValueBatches(
            data=self.data,
            images=self.images,
            recipe=self.recipe,
            num_frames=self.model.head.num_frames,
            action_horizon=self.model.shape.action_horizon,
            rank=self.world.rank,
            num_processes=self.world.size,
        )
        self._loader: Loader[tuple[Batch, ...]] | None = None
        self._step = -1
        self._parts: tuple[Batch, ...] = ()

    def close(self) -> None:
        """End what makes batches; nothing happens the second time."""
        if self._loader is not None:
            self._loader.close()
            self._loader = None

    def _batch(self, step: int, part: int) -> Batch:
        """Return a part of this process's batch of ``step``; those of the steps after it are being made from now on."""
        if step == self._step:
            return self._parts[part]
        if self._loader is None or step != self._step + 1:
            self.close()
            left, workers = max(self.recipe.steps - step, 1), self.recipe.loader_workers
            self._loader = Loader(self.batches, first_step=step, num_steps=left, num_workers=workers)
        self._step, self._parts = step, next(self._loader)
        return self._parts[part]

    def losses(self, step: int, part: int = 0) -> dict[str, torch.Tensor]:
        """Return the mean losses of a part of this process's rows of ``step``."""
        model, batch = self.model, self._batch(step, part)
        count, num_frames, _ = batch.state.shape
        state = self._tensor(batch.state)
        features = state.new_zeros(count, num_frames, 0)
        if batch.images is not None:
            views = self._tensor(batch.images)
            with self._autocast():
                features = model.encode(views, self._tensor(batch.gain)).view(count, num_frames, -1)
        with nullcontext() if model.compact else self._autocast():
            logits = model.value_logits(features, state, self._tensor(batch.tasks))
        value_loss = model.head.loss_rows(logits, self._tensor(batch.target)).mean()
        if batch.actions is None or batch.real is None:
            return {"loss": self.recipe.value_weight * value_loss, "value_loss": value_loss}
        guess = model.actions(features[:, -1], state[:, -1])
        action_loss = losses.action_error(guess, self._tensor(batch.actions), self._tensor(batch.real))
        total = self.recipe.value_weight * value_loss + self.recipe.action_weight * action_loss
        return {"loss": total, "value_loss": value_loss, "action_loss": action_loss}

    def evaluate(self) -> dict[str, float | None]:
        """Return what :class:`HeldOut` measures."""
        return HeldOut(
            model=self.model,
            data=self.data,
            images=self.images,
            pairs=self.batches.pairs,
            world=self.world,
            num_frames=self.recipe.eval_frames,
            seed=self.recipe.seed,
            precision="float32" if self.model.compact else self.recipe.precision,
        ).measure()

    def _autocast(self) -> torch.autocast:
        return self.model.autocast(self.recipe.precision)

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.model.device)
