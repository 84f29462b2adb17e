"""What a step of value training computes, and what is measured on held-out episodes."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from robolift.training.distributed import World, sum_over
from robolift.training.sampler import EpochSampler
from robolift.value_model import augment, heads, losses
from robolift.value_model.data import TrainingData
from robolift.value_model.metrics import area_under_curve, spearman
from robolift.value_model.model import ValueModel
from robolift.value_model.recipe import Recipe

EVALUATION_BATCH = 64


@dataclass
class ValueObjective:
    """Cross-entropy of the value, plus the error of the auxiliary action head where there is one.

    Attributes:
        model: The model being trained.
        data: Everything but images.
        images: (N, K, H, W, 3) uint8 of all frames, None without cameras.
        recipe: Weights of the losses, augmentation, batch size.
        world: This process; it computes its own part of each batch.
    """

    model: ValueModel
    data: TrainingData
    images: np.ndarray | None
    recipe: Recipe
    world: World
    sampler: EpochSampler = field(init=False)

    def __post_init__(self) -> None:
        self.sampler = EpochSampler(
            num_rows=len(self.data.train_rows), batch_size=self.recipe.batch_size, seed=self.recipe.seed
        )
        self.device = self.model.support.device

    def losses(self, step: int) -> dict[str, torch.Tensor]:
        """Return this process's mean losses of ``step``."""
        config, shape = self.model.config, self.model.shape
        share = self.recipe.batch_size // self.world.size
        part = slice(self.world.rank * share, (self.world.rank + 1) * share)
        rows = self.data.train_rows[self.sampler.batch(step)][part]
        draws = augment.draw(self.recipe, step, num_cameras=shape.num_cameras, state_dim=shape.state_dim).part(part)
        state = self._tensor(self.data.states[rows] + draws.noise)
        features = state.new_zeros(len(rows), 0)
        if self.images is not None:
            views = self._tensor(augment.shifted(self.images, rows, draws.shift))
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.precision == "bfloat16"):
                features = self.model.encode(views, self._tensor(draws.gain))
        logits = self.model.value_logits(features, state, self._tensor(self.data.tasks[rows]))
        target = heads.two_hot(self._tensor(self.data.targets[rows]), config.atoms, config.low, config.high)
        value_loss = losses.cross_entropy(logits, target)
        if not shape.action_horizon:
            return {"loss": self.recipe.value_weight * value_loss, "value_loss": value_loss}
        actions, real = self.data.action_chunk(rows, shape.action_horizon)
        guess = self.model.actions(features, state)
        action_loss = losses.action_error(guess, self._tensor(actions), self._tensor(real))
        total = self.recipe.value_weight * value_loss + self.recipe.action_weight * action_loss
        return {"loss": total, "value_loss": value_loss, "action_loss": action_loss}

    @torch.no_grad()
    def evaluate(self) -> dict[str, float | None]:
        """Return held-out loss, rank correlation and outcome AUC; the batches are dealt out to the processes."""
        config, rows = self.model.config, self.data.val_rows
        value, loss = np.zeros(len(rows)), np.zeros(len(rows))
        starts = range(0, len(rows), EVALUATION_BATCH)
        for start in starts[self.world.rank :: self.world.size]:
            part = slice(start, start + EVALUATION_BATCH)
            batch = rows[part]
            state = self._tensor(self.data.states[batch])
            features = state.new_zeros(len(batch), 0)
            if self.images is not None:
                features = self.model.encode(self._tensor(self.images[batch]))
            logits = self.model.value_logits(features, state, self._tensor(self.data.tasks[batch]))
            target = heads.two_hot(self._tensor(self.data.targets[batch]), config.atoms, config.low, config.high)
            value[part] = heads.expectation(logits, self.model.support)[0].double().cpu().numpy()
            loss[part] = losses.cross_entropy_rows(logits, target).double().cpu().numpy()
        value, loss = (sum_over(self.world, self._tensor(x)).cpu().numpy() for x in (value, loss))
        return {
            "loss": float(loss.mean()),
            "spearman": spearman(value, self.data.targets[rows]),
            "outcome_auc": outcome_auc(value, rows, self.data.starts, self.data.success),
        }

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)


def outcome_auc(values: np.ndarray, rows: np.ndarray, starts: np.ndarray, success: np.ndarray) -> float | None:
    """Return how well an episode's mean value tells success from failure, None without both among ``rows``.

    Args:
        values: (M,) predicted values.
        rows: (M,) dataset rows they belong to.
        starts: (E + 1,) first row of each episode.
        success: (E,) 1 success, 0 failure, -1 unknown (left out).
    """
    episode = np.searchsorted(starts, rows, side="right") - 1
    count = np.bincount(episode, minlength=len(success))
    mean = np.bincount(episode, weights=values, minlength=len(success)) / np.maximum(count, 1)
    seen = count > 0
    return area_under_curve(mean[seen & (success == 1)], mean[seen & (success == 0)])
