"""What is measured on held-out episodes while a value model is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from robolift.training.distributed import World, sum_over
from robolift.value_model.data import TrainingData
from robolift.value_model.metrics import area_under_curve, spearman
from robolift.value_model.network import ValueNetwork
from robolift.value_model.pairs import AdvantagePairs

EVALUATION_BATCH = 64
TOWER_BATCH = 16
"""Values computed at a time by a language tower, whose sequences are thousands of tokens long."""


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Measures a model on the held-out rows, the work dealt out to the processes.

    Attributes:
        model: The model as it is now.
        data: Everything but images.
        images: (N, K, H, W, 3) uint8 of all frames, None without cameras.
        pairs: Which frames held-out frames are compared with.
        world: This process; it computes its own part.
    """

    model: ValueNetwork
    data: TrainingData
    images: np.ndarray | None
    pairs: AdvantagePairs
    world: World

    @torch.no_grad()
    def measure(self) -> dict[str, float | None]:
        """Return held-out loss and how well values rank.

        ``loss`` is that of the head, over fixed pairs where it takes two frames. ``spearman`` is the rank correlation
        of predictions and targets. A distribution adds ``outcome_auc``. A head that learns progress adds
        ``episode_spearman``, the mean over episodes of the rank correlation of value and progress along each, and what
        a model that sees nothing could reach: ``constant_loss``, the best constant for these very targets, and
        ``uniform_constant_loss``, the best one if progress were uniform (1/6 for two frames, 1/12 for one).
        """
        rows, head = self.data.val_rows, self.model.head
        frames = rows[:, None]
        if head.num_frames == 2:
            frames = np.stack([self.pairs.fixed(rows), rows], axis=1)
        target = self.data.value_targets(frames)
        first = self.data.starts[np.searchsorted(self.data.starts, rows, side="right") - 1]
        # What is predicted for the targets; the value along the episode, which for two frames is another; the loss.
        found = np.zeros((3, len(rows)))
        for part in self._parts()[self.world.rank :: self.world.size]:
            seen = Seen.of(self.model, self.data, self.images, rows[part])
            logits = seen.logits(frames[part])
            found[:2, part] = _numbers(head.read(logits)[0])
            found[2, part] = _numbers(head.loss_rows(logits, seen.tensor(target[part])))
            if head.num_frames == 2:
                found[1, part] = _numbers(head.read(seen.logits(np.stack([first[part], rows[part]], axis=1)))[0])
        guess, value, loss = sum_over(self.world, torch.from_numpy(found).to(self.model.device)).cpu().numpy()
        measures = {"loss": float(loss.mean()), "spearman": spearman(guess, target)}
        if head.uniform_error is None:
            return measures | {"outcome_auc": outcome_auc(value, rows, self.data.starts, self.data.success)}
        return measures | {
            "episode_spearman": episode_spearman(value, self.data.targets[rows], first),
            "constant_loss": float(target.astype(np.float64).var()),
            "uniform_constant_loss": head.uniform_error,
        }

    def _parts(self) -> Sequence[slice]:
        """Return the pieces of the held-out rows: batches, or whole episodes where frames are compared."""
        rows = self.data.val_rows
        if self.model.head.num_frames == 1:
            edges = np.arange(0, len(rows), EVALUATION_BATCH)
        else:
            edges = np.searchsorted(rows, self.data.starts[self.data.held_out])
        return [slice(int(a), int(b)) for a, b in zip(edges, [*edges[1:], len(rows)], strict=True)]


@dataclass(frozen=True, kw_only=True)
class Seen:
    """Some held-out rows, each encoded once.

    Attributes:
        model: Encodes and judges them.
        data: Everything but images.
        rows: (M,) which, ascending.
        features: (M, F) of each row.
        state: (M, S) normalised state of each row.
    """

    model: ValueNetwork
    data: TrainingData
    rows: np.ndarray
    features: torch.Tensor
    state: torch.Tensor

    @classmethod
    def of(cls, model: ValueNetwork, data: TrainingData, images: np.ndarray | None, rows: np.ndarray) -> Seen:
        """Encode ``rows``, at most EVALUATION_BATCH at a time."""
        state = torch.from_numpy(data.states[rows]).to(model.device)
        features = state.new_zeros(len(rows), 0)
        if images is not None:
            batches = [rows[start : start + EVALUATION_BATCH] for start in range(0, len(rows), EVALUATION_BATCH)]
            features = torch.cat([model.encode(torch.from_numpy(images[b]).to(model.device)) for b in batches])
        return cls(model=model, data=data, rows=rows, features=features, state=state)

    def tensor(self, array: np.ndarray) -> torch.Tensor:
        """Return ``array`` on the model's device."""
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.model.device)

    def logits(self, frames: np.ndarray) -> torch.Tensor:
        """Return the outputs for (B, P) rows, all of them among those encoded."""
        size = max(1, len(frames)) if self.model.compact else TOWER_BATCH
        return torch.cat([self._logits(frames[start : start + size]) for start in range(0, len(frames), size)])

    def _logits(self, frames: np.ndarray) -> torch.Tensor:
        place = self.tensor(np.searchsorted(self.rows, frames))
        task = self.tensor(self.data.tasks[frames[:, -1]])
        return self.model.value_logits(self.features[place], self.state[place], task)


def _numbers(tensor: torch.Tensor) -> np.ndarray:
    return tensor.double().cpu().numpy()


def episode_spearman(value: np.ndarray, progress: np.ndarray, episode: np.ndarray) -> float | None:
    """Return the mean over episodes of the rank correlation of value and progress.

    Args:
        value: (M,) predicted along each episode.
        progress: (M,) what it should rank as.
        episode: (M,) any number of its own for each episode.

    Returns:
        None when no episode has two frames in which both differ; such episodes do not count.
    """
    each = [spearman(value[episode == e], progress[episode == e]) for e in np.unique(episode)]
    known = [one for one in each if one is not None]
    return float(np.mean(known)) if known else None


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
