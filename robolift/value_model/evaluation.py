"""What is measured on held-out episodes while a value model is trained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from robolift.data.frames import Frames
from robolift.training.distributed import World, sum_over
from robolift.value_model.data import TrainingData
from robolift.value_model.metrics import area_under_curve, spearman
from robolift.value_model.network import ValueNetwork
from robolift.value_model.pairs import AdvantagePairs

EVALUATION_BATCH = 64
TOWER_BATCH = 16
"""Values computed at a time by a language tower, whose sequences are thousands of tokens long; with the frames that
they are compared with no more than EVALUATION_BATCH frames."""
CHOICE = 0x63686F69
"""Keeps the draw of frames apart from the other streams that start from the seed."""


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Measures a model on the held-out rows, the work dealt out to the processes.

    Attributes:
        model: The model as it is now.
        data: Everything but images.
        images: (N, K, H, W, 3) uint8 of all frames by row, None without cameras.
        pairs: Which frames held-out frames are compared with.
        world: This process; it computes its own part.
        num_frames: Held-out frames measured, 0 for all.
        seed: Seed of their choice.
        precision: Arithmetic of images and text; what the head reads and the loss are float32 in any case.
    """

    model: ValueNetwork
    data: TrainingData
    images: Frames | None
    pairs: AdvantagePairs
    world: World
    num_frames: int = 0
    seed: int = 0
    precision: str = "float32"

    @torch.no_grad()
    def measure(self) -> dict[str, float | None]:
        """Return held-out loss and how well values rank.

        ``loss`` is that of the head, over fixed pairs where it takes two frames. ``spearman`` is the rank correlation
        of predictions and targets. A distribution adds ``outcome_auc``. A head that learns progress adds
        ``episode_spearman``, the mean over episodes of the rank correlation of value and progress along each, and what
        a model that sees nothing could reach: ``constant_loss``, the best constant for these very targets, and
        ``uniform_constant_loss``, the best one if progress were uniform (1/6 for two frames, 1/12 for one).
        """
        head = self.model.head
        rows = spread_over_episodes(self.data.val_rows, self.data.starts, self.num_frames, self.seed)
        first = self.data.starts[np.searchsorted(self.data.starts, rows, side="right") - 1]
        frames, begun = rows[:, None], np.stack([first, rows], axis=1)
        if head.num_frames == 2:
            frames = np.stack([self.pairs.fixed(rows), rows], axis=1)
        target = self.data.value_targets(frames)
        # What is predicted for the targets; the value along the episode, which for two frames is another; the loss.
        found = np.zeros((3, len(rows)))
        for part, counts in self._shared(self._parts(rows)):
            looked_at = [frames[part], begun[part]] if head.num_frames == 2 else [frames[part]]
            seen = Seen.of(self.model, self.data, self.images, np.unique(np.concatenate(looked_at)), self.precision)
            logits = seen.logits(frames[part])
            numbers = [head.value(logits)] * 2 + [head.loss_rows(logits, seen.tensor(target[part]))]
            if head.num_frames == 2:
                numbers[1] = head.value(seen.logits(begun[part]))
            if counts:
                found[:, part] = [_numbers(number) for number in numbers]
        guess, value, loss = sum_over(self.world, torch.from_numpy(found).to(self.model.device)).cpu().numpy()
        measures = {"loss": float(loss.mean()), "spearman": spearman(guess, target)}
        if head.uniform_error is None:
            return measures | {"outcome_auc": outcome_auc(value, rows, self.data.starts, self.data.success)}
        return measures | {
            "episode_spearman": episode_spearman(value, self.data.targets[rows], first),
            "constant_loss": float(target.astype(np.float64).var()),
            "uniform_constant_loss": head.uniform_error,
        }

    def _parts(self, rows: np.ndarray) -> Sequence[slice]:
        """Return the pieces of ``rows``: batches, or whole episodes where compact features of frames are compared."""
        if self.model.compact and self.model.head.num_frames == 2:
            edges = np.unique(np.searchsorted(rows, self.data.starts[self.data.held_out]))
        else:
            edges = np.arange(0, len(rows), EVALUATION_BATCH if self.model.compact else TOWER_BATCH)
        edges = edges[edges < len(rows)]
        return [slice(int(a), int(b)) for a, b in zip(edges, [*edges[1:], len(rows)], strict=True)]

    def _shared(self, parts: Sequence[slice]) -> Iterator[tuple[slice, bool]]:
        """Yield the parts that this process computes, and whether each counts: as many in every process.

        Weights that are dealt out are put together by all processes at once, so none may compute more often than
        another: in the last round some do a part again that is not theirs.
        """
        for start in range(0, len(parts), self.world.size):
            mine = start + self.world.rank
            yield parts[min(mine, len(parts) - 1)], mine < len(parts)


def spread_over_episodes(rows: np.ndarray, starts: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Return ``count`` of ``rows``, ascending: the same number of each episode as far as its frames go.

    The frames of each episode are put into a random order. All first ones are taken, then all second ones and so on
    until there are enough; which episodes give one in the last round is drawn, too.

    Args:
        rows: (M,) dataset rows.
        starts: (E + 1,) first row of each episode.
        count: How many; 0 or more than M takes all.
        seed: Seed of the draw.
    """
    if not 0 < count < len(rows):
        return rows
    shuffled = np.random.default_rng([seed, CHOICE]).permutation(rows)
    episode = np.searchsorted(starts, shuffled, side="right") - 1
    by_episode = np.argsort(episode, kind="stable")
    _, begin, length = np.unique(episode[by_episode], return_index=True, return_counts=True)
    turn = np.empty(len(rows), np.int64)
    turn[by_episode] = np.arange(len(rows)) - np.repeat(begin, length)
    return np.sort(shuffled[np.argsort(turn, kind="stable")[:count]])


@dataclass(frozen=True, kw_only=True)
class Seen:
    """Some held-out rows, each encoded once.

    Attributes:
        model: Encodes and judges them.
        data: Everything but images.
        rows: (M,) which, ascending.
        features: (M, F) of each row.
        state: (M, S) normalised state of each row.
        precision: Arithmetic of images and text.
    """

    model: ValueNetwork
    data: TrainingData
    rows: np.ndarray
    features: torch.Tensor
    state: torch.Tensor
    precision: str

    @classmethod
    def of(
        cls, model: ValueNetwork, data: TrainingData, images: Frames | None, rows: np.ndarray, precision: str
    ) -> Seen:
        """Encode ``rows``, at most EVALUATION_BATCH at a time."""
        state = torch.from_numpy(data.states[rows]).to(model.device)
        features = state.new_zeros(len(rows), 0)
        if images is not None:
            batches = [rows[start : start + EVALUATION_BATCH] for start in range(0, len(rows), EVALUATION_BATCH)]
            with model.autocast(precision):
                features = torch.cat([model.encode(torch.from_numpy(images[b]).to(model.device)) for b in batches])
        return cls(model=model, data=data, rows=rows, features=features, state=state, precision=precision)

    def tensor(self, array: np.ndarray) -> torch.Tensor:
        """Return ``array`` on the model's device."""
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.model.device)

    def logits(self, frames: np.ndarray) -> torch.Tensor:
        """Return the outputs for (B, P) rows, all of them among those encoded."""
        place = self.tensor(np.searchsorted(self.rows, frames))
        task = self.tensor(self.data.tasks[frames[:, -1]])
        with self.model.autocast(self.precision):
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
