"""Does training on some clips make a better policy than training on others? Behaviour cloning, small and fair.

From what an encoder sees of a frame, where the hand is and how it moves, the policy predicts where the hand goes. It is
trained anew on each subset of the clips, from the same start, for the same number of steps, and tested on the same
clips.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from robolift.clips.inputs import numbers, vectors
from robolift.data.principal import principal_directions
from robolift.errors import DataError, UsageError

HIDDEN = 32
COMPONENTS = 8
"""Principal components of the frames' embeddings that the policy sees; with more it learns a subset by heart."""
HAND_COLUMNS = 6
"""The last of the inputs: the hand's place x, y and whether it is seen, its velocity x, y and whether it is known."""
LEARNING_RATE = 3e-3
BETAS = (0.9, 0.999)
EPSILON = 1e-8
STRATA = 5
"""A stratified subset is drawn from a window of a fifth of the clips in order of score,"""
ROOM = 3
"""or of this many subsets where a fifth is less, but at most of half the clips: subsets that share most of their clips
are no separate measurements."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Samples:
    """What is learned from, a row for each frame that has a future of ``horizon_s``.

    Attributes:
        clip: (n,) row of the clip it is from.
        inputs: (n, columns) what the policy sees.
        targets: (n, 2) displacement of the hand, or of the picture where no hand is seen, over the horizon, as
            fractions of the picture's width and height.
        by_hand: (n,) bool, whether the target is a hand's.
    """

    clip: np.ndarray
    inputs: np.ndarray
    targets: np.ndarray
    by_hand: np.ndarray

    def of(self, clips: np.ndarray) -> np.ndarray:
        """Return which rows are from one of ``clips``, (n,) bool."""
        return np.isin(self.clip, clips)


def read_samples(frames: pa.Table, clip_ids: Sequence[str], *, horizon_s: float, where: str) -> Samples:
    """Build samples from ``frames.parquet`` of a FeatureSet.

    A frame's input is its embedding, the hand's place (0 where no hand is seen) and whether one is seen, the hand's
    velocity since the sampled frame before (0 where one of them sees no hand) and whether it is known.

    Args:
        frames: Rows clip_id, frame, time_s, embedding, hand_x, hand_y, flow_x, flow_y.
        clip_ids: The clips, sorted; the rows of others are not used.
        horizon_s: How far ahead.
        where: Named in errors.

    Raises:
        DataError: If no clip is long enough, or one of them has no frames.
    """
    frames = frames.sort_by([("clip_id", "ascending"), ("time_s", "ascending")]).combine_chunks()
    index = {clip_id: row for row, clip_id in enumerate(clip_ids)}
    clip = np.array([index.get(clip_id, -1) for clip_id in frames.column("clip_id").to_pylist()], np.int64)
    missing = np.setdiff1d(np.arange(len(clip_ids)), clip)
    if len(missing):
        raise DataError(
            f"{len(missing)} clips have no frames", where=f"{where}: first {clip_ids[missing[0]]}", expected="some each"
        )
    time = numbers(frames, "time_s")
    hand, flow = (np.stack([numbers(frames, f"{name}_{axis}") for axis in "xy"], axis=1) for name in ("hand", "flow"))
    targets, by_hand = np.full((len(clip), 2), np.nan), np.zeros(len(clip), bool)
    velocity = np.full((len(clip), 2), np.nan)
    edges = [0, *(np.flatnonzero(np.diff(clip)) + 1).tolist(), len(clip)]
    for start, stop in itertools.pairwise(edges):
        rows = slice(start, stop)
        targets[rows], by_hand[rows] = displacements(time[rows], hand[rows], flow[rows], horizon_s)
        velocity[start + 1 : stop] = np.diff(hand[rows], axis=0) / np.diff(time[rows])[:, None]
    usable = (clip >= 0) & np.isfinite(targets).all(axis=1)
    if not usable.any():
        raise DataError(
            f"no frame has a future of {horizon_s} s",
            where=where,
            expected="clips longer than the horizon, with hands or flow",
            mend="set a shorter horizon_s",
        )
    inputs = np.column_stack([vectors(frames, "embedding", where=where), *_known(hand), *_known(velocity)])
    return Samples(clip=clip[usable], inputs=inputs[usable], targets=targets[usable], by_hand=by_hand[usable])


def _known(track: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (n, 2) with 0 where it is not known, and (n,) bool whether it is."""
    known = np.isfinite(track).all(axis=1)
    return np.where(known[:, None], track, 0.0), known


def displacements(
    time: np.ndarray, hand: np.ndarray, flow: np.ndarray, horizon_s: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return what happens within ``horizon_s`` of each frame of one clip, and whether a hand tells it.

    The hand's place at t + horizon is interpolated linearly between the sampled frames around it. Where the hand is not
    seen there or at t, the mean flow from t to t + horizon, which is constant between two sampled frames, times the
    horizon is taken. Neither is known for frames whose future goes beyond the last frame.

    Args:
        time: (n,) seconds, ascending.
        hand: (n, 2) place of the hand, NaN where none is seen.
        flow: (n, 2) mean flow from a frame to the next, a second.
        horizon_s: How far ahead.

    Returns:
        (n, 2) displacements, NaN where not known, and (n,) bool.
    """
    end = time + horizon_s
    inside = end <= time[-1] + 1e-9
    after = np.minimum(np.searchsorted(time, end - 1e-9, side="left"), len(time) - 1)
    before = np.maximum(after - 1, 0)
    span = np.where(after > before, time[after] - time[before], 1.0)
    share = np.clip((end - time[before]) / span, 0.0, 1.0)[:, None]
    # At a sampled frame only that frame counts: its neighbour may see no hand.
    there = np.where(share >= 1 - 1e-6, hand[after], (1 - share) * hand[before] + share * hand[after])
    by_hand = inside & np.isfinite(there - hand).all(axis=1)
    moved = np.concatenate([np.zeros((1, 2)), np.cumsum(flow[:-1] * np.diff(time)[:, None], axis=0)])
    drifted = moved[before] + share * (moved[after] - moved[before]) - moved
    found = np.where(by_hand[:, None], there - hand, drifted)
    return np.where(inside[:, None], found, np.nan), by_hand


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """The samples in the scale of the pool, and the fixed test.

    Attributes:
        clip: (n,) clip of each row.
        inputs: (n, columns) standardized.
        targets: (n, 2) standardized, so that predicting the pool's mean has a loss near 1.
        test: (n,) bool, rows of held-out clips.
    """

    clip: np.ndarray
    inputs: np.ndarray
    targets: np.ndarray
    test: np.ndarray

    @classmethod
    def of(cls, samples: Samples, held_out: np.ndarray) -> Task:
        """Standardize by the clips that subsets are drawn from, all of them, so that no subset sets its own scale.

        Args:
            samples: Of all clips.
            held_out: (clips,) bool.

        Raises:
            DataError: If a side has no sample, or the hands of the pool never move.
        """
        test = held_out[samples.clip]
        if test.all() or not test.any():
            raise DataError(
                f"{int(test.sum())} of {len(test)} samples are of held-out clips",
                where="frames.parquet",
                expected="some on both sides",
                mend="set another held_out, or a shorter horizon_s",
            )
        width = samples.inputs.shape[1] - HAND_COLUMNS
        embedding = samples.inputs[:, :width]
        centre = embedding[~test].mean(axis=0)
        projected = (embedding - centre) @ principal_directions(embedding[~test] - centre, COMPONENTS)
        inputs = np.column_stack([projected, samples.inputs[:, width:]])
        spread = samples.targets[~test].std(axis=0)
        if (spread <= 1e-12).any():
            raise DataError(
                "nothing moves in the clips that subsets are drawn from",
                where="frames.parquet",
                expected="hands or flow that differ between frames",
            )
        return cls(
            clip=samples.clip,
            inputs=_standardized(inputs, ~test),
            targets=(samples.targets - samples.targets[~test].mean(axis=0)) / spread,
            test=test,
        )


def _standardized(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    mean, std = values[rows].mean(axis=0), values[rows].std(axis=0)
    flat = std <= 1e-9 * np.maximum(1.0, np.abs(mean))
    return np.asarray((values - mean) / np.where(flat, np.inf, std))


def measure(task: Task, clips: np.ndarray, *, steps: int, seed: int) -> float:
    """Return M(S) = - (mean squared error on the held-out clips) of a policy trained on the clips S.

    One hidden layer of tanh, trained on all samples of S at once by Adam. The start depends on the seed alone, the
    number of steps is fixed, and nothing is chosen by looking at the test.

    Args:
        task: Samples and test.
        clips: Rows of the clips of S, in any order.
        steps: Steps of Adam.
        seed: Of the start.

    Raises:
        DataError: If none of the clips has a sample.
    """
    rows = np.isin(task.clip, clips) & ~task.test
    if not rows.any():
        raise DataError("a subset has no sample", where="frames.parquet", expected="longer clips, or a shorter horizon")
    parameters = fit(task.inputs[rows], task.targets[rows], steps=steps, seed=seed)
    error = predict(parameters, task.inputs[task.test]) - task.targets[task.test]
    return -float((error**2).mean())


Parameters = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def predict(parameters: Parameters, inputs: np.ndarray) -> np.ndarray:
    """Return the policy's predictions, (n, 2)."""
    first, first_bias, second, second_bias = parameters
    return np.asarray(np.tanh(inputs @ first + first_bias) @ second + second_bias)


def loss_and_gradient(
    parameters: Parameters, inputs: np.ndarray, targets: np.ndarray
) -> tuple[float, tuple[np.ndarray, ...]]:
    """Return the mean squared error and its derivative by each parameter."""
    first, first_bias, second, second_bias = parameters
    hidden = np.tanh(inputs @ first + first_bias)
    error = hidden @ second + second_bias - targets
    slope = 2 * error / error.size
    back = (slope @ second.T) * (1 - hidden**2)
    return float((error**2).mean()), (inputs.T @ back, back.sum(axis=0), hidden.T @ slope, slope.sum(axis=0))


def fit(inputs: np.ndarray, targets: np.ndarray, *, steps: int, seed: int) -> Parameters:
    """Train a policy by ``steps`` steps of Adam (Kingma and Ba 2015) on all samples at once."""
    rng = np.random.default_rng(seed)
    columns, outputs = inputs.shape[1], targets.shape[1]
    parameters = [
        rng.normal(0, 1 / np.sqrt(columns), (columns, HIDDEN)),
        np.zeros(HIDDEN),
        np.zeros((HIDDEN, outputs)),
        np.zeros(outputs),
    ]
    means, squares = ([np.zeros_like(value) for value in parameters] for _ in range(2))
    for step in range(1, steps + 1):
        first, first_bias, second, second_bias = parameters
        _, gradient = loss_and_gradient((first, first_bias, second, second_bias), inputs, targets)
        for value, slope, mean, square in zip(parameters, gradient, means, squares, strict=True):
            mean += (1 - BETAS[0]) * (slope - mean)
            square += (1 - BETAS[1]) * (slope**2 - square)
            scale = np.sqrt(square / (1 - BETAS[1] ** step)) + EPSILON
            value -= LEARNING_RATE * mean / (1 - BETAS[0] ** step) / scale
    return parameters[0], parameters[1], parameters[2], parameters[3]


@dataclass(frozen=True, kw_only=True, eq=False)
class Subset:
    """Clips to train on together.

    Attributes:
        group: ``stratum`` or ``random``.
        clips: (size,) their rows, sorted.
    """

    group: str
    clips: np.ndarray


def draw_subsets(
    scores: np.ndarray, pool: np.ndarray, *, num_subsets: int, num_random: int, size: int, seed: int
) -> list[Subset]:
    """Draw subsets of equal size: first those whose mean scores spread from low to high, then random ones.

    In order of score, stratified subset k of K is drawn from a window of the pool (see ``STRATA``) that moves evenly
    from its lower end (k = 0) to its upper end (k = K - 1). One top and one bottom subset would be two points, which
    say nothing about a correlation.

    Args:
        scores: (clips,).
        pool: Rows of the clips to draw from.
        num_subsets: Stratified ones, at least 2.
        num_random: Random ones: the baseline of dM.
        size: Clips in each.
        seed: Decides all; each subset has random numbers of its own, so that none depends on the others.

    Raises:
        UsageError: If the pool is smaller than a subset.
    """
    if len(pool) <= size:
        raise UsageError(
            f"subset_size {size} of {len(pool)} clips that are not held out makes all subsets alike; "
            "set a smaller subset_size, or extract more clips"
        )
    order = pool[np.argsort(scores[pool], kind="stable")]
    window = max(size, min(max(-(-len(pool) // STRATA), ROOM * size), -(-len(pool) // 2)))
    found = []
    for number in range(num_subsets + num_random):
        rng = np.random.default_rng([seed, number])
        if number < num_subsets:
            start = round(number * (len(pool) - window) / (num_subsets - 1))
            clips, group = order[start : start + window], "stratum"
        else:
            clips, group = np.sort(pool), "random"
        found.append(Subset(group=group, clips=np.sort(rng.choice(clips, size=size, replace=False))))
    return found


def describe(samples: Samples, task: Task) -> Mapping[str, float]:
    """Return what the policies are trained and tested on."""
    return {
        "samples": len(samples.clip),
        "test_samples": int(task.test.sum()),
        "hand_share": float(samples.by_hand.mean()),
        "constant_loss": float((task.targets[task.test] ** 2).mean()),
    }
