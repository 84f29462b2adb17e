"""Does training on some clips make a better policy than training on others? Behaviour cloning, small and fair.

From what an encoder sees of a frame, where the hand is and how it moves, the policy predicts where the hand goes. It is
trained anew on each subset of the clips, to the optimum, and tested on the same clips.
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

HAND_COLUMNS = 6
"""The last of the inputs: the hand's place x, y and whether it is seen, its velocity x, y and whether it is known."""
PENALTIES = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
TRIALS = 40
"""Random subsets by which the penalty is chosen."""


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
    def of(cls, samples: Samples, held_out: np.ndarray, *, components: int) -> Task:
        """Standardize by the clips that subsets are drawn from, all of them, so that no subset sets its own scale.

        Args:
            samples: Of all clips.
            held_out: (clips,) bool.
            components: Principal components of the embeddings that the policy sees; with more it learns a subset by
                heart.

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
        projected = (embedding - centre) @ principal_directions(embedding[~test] - centre, components)
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


def hidden_layer(inputs: np.ndarray, *, units: int, seed: int) -> np.ndarray:
    """Return what the policy's output layer sees: ``units`` random functions of the inputs, and 1, (n, units + 1).

    The hidden layer stays as it was drawn (random features, Rahimi and Recht 2007), so that training has one optimum,
    which depends on the data alone.
    """
    rng = np.random.default_rng(seed)
    columns = inputs.shape[1]
    weights, bias = rng.normal(0, 1 / np.sqrt(columns), (columns, units)), rng.uniform(-1, 1, units)
    return np.column_stack([np.tanh(inputs @ weights + bias), np.ones(len(inputs))])


def fit(hidden: np.ndarray, targets: np.ndarray, *, penalty: float) -> np.ndarray:
    """Return the output layer with the least squared error plus ``penalty`` times its squared weights, (columns, 2)."""
    square = hidden.T @ hidden + penalty * np.eye(hidden.shape[1])
    return np.asarray(np.linalg.solve(square, hidden.T @ targets))


def measure(task: Task, hidden: np.ndarray, clips: np.ndarray, *, penalty: float) -> float:
    """Return M(S) = - (mean squared error on the held-out clips) of a policy trained on the clips S.

    Nothing is chosen by looking at the test.

    Args:
        task: Samples and test.
        hidden: (n, columns) of all samples, by :func:`hidden_layer`.
        clips: Rows of the clips of S, in any order.
        penalty: As in :func:`fit`.

    Raises:
        DataError: If none of the clips has a sample.
    """
    rows = np.isin(task.clip, clips) & ~task.test
    if not rows.any():
        raise DataError("a subset has no sample", where="frames.parquet", expected="longer clips, or a shorter horizon")
    return -_loss(hidden, task.targets, fit(hidden[rows], task.targets[rows], penalty=penalty), task.test)


def _loss(hidden: np.ndarray, targets: np.ndarray, weights: np.ndarray, rows: np.ndarray) -> float:
    return float(((hidden[rows] @ weights - targets[rows]) ** 2).mean())


def choose_penalty(task: Task, hidden: Sequence[np.ndarray], pool: np.ndarray, *, size: int, seed: int) -> float:
    """Return the penalty with which random subsets of the pool teach most about the pool's other clips.

    Neither scores nor the test are looked at, so that no score is favoured. Of equal losses the larger penalty wins.

    Args:
        task: Samples.
        hidden: Of each seed, by :func:`hidden_layer`.
        pool: Rows of the clips that subsets are drawn from, more than ``size``.
        size: Clips in a subset.
        seed: Decides the random subsets.
    """
    rng = np.random.default_rng([seed, len(pool), size])
    total = dict.fromkeys(PENALTIES, 0.0)
    for _ in range(TRIALS):
        inside = np.isin(task.clip, rng.choice(pool, size=size, replace=False))
        outside = ~inside & ~task.test
        if not inside.any() or not outside.any():
            continue
        for features, penalty in itertools.product(hidden, PENALTIES):
            weights = fit(features[inside], task.targets[inside], penalty=penalty)
            total[penalty] += _loss(features, task.targets, weights, outside)
    return min(PENALTIES, key=lambda penalty: (total[penalty], -penalty))


@dataclass(frozen=True, kw_only=True, eq=False)
class Subset:
    """Clips to train on together.

    Attributes:
        group: ``stratum`` or ``random``.
        clips: (size,) their rows, sorted.
    """

    group: str
    clips: np.ndarray


def subset_size(num_clips: int, *, num_subsets: int, size: int) -> int:
    """Return how many clips a subset has: ``size``, or with 0 as many as separate subsets leave room for.

    Raises:
        UsageError: If there are too few clips for separate subsets of at least two.
    """
    room = num_clips // num_subsets
    if room < max(size, 2):
        raise UsageError(
            f"{num_subsets} separate subsets of {max(size, 2)} clips need {num_subsets * max(size, 2)}, and "
            f"{num_clips} are not held out; extract more clips, or set a smaller subset_size or num_subsets"
        )
    return size or room


def draw_subsets(
    scores: np.ndarray, pool: np.ndarray, *, num_subsets: int, num_random: int, size: int, seed: int
) -> list[Subset]:
    """Draw subsets of equal size: first those whose mean scores spread from low to high, then random ones.

    In order of score, subset 0 has the lowest clips, subset K - 1 the highest, and no clip is in two: each is a
    measurement of its own. With scores that say nothing they are a random division of the pool, in which every order is
    as likely, so what chance makes of rho is known exactly. One top and one bottom subset would be two points, which
    say nothing about a correlation. Where the pool has more clips than needed, those taken are chosen at random.

    Args:
        scores: (clips,).
        pool: Rows of the clips to draw from, at least ``num_subsets * size``.
        num_subsets: Stratified ones.
        num_random: Random ones, which may share clips: the baseline of dM.
        size: Clips in each.
        seed: Decides all.
    """
    rng = np.random.default_rng([seed, len(pool)])
    taken = rng.choice(pool, size=num_subsets * size, replace=False)
    strata = taken[np.argsort(scores[taken], kind="stable")].reshape(num_subsets, size)
    found = [Subset(group="stratum", clips=np.sort(clips)) for clips in strata]
    for _ in range(num_random):
        found.append(Subset(group="random", clips=np.sort(rng.choice(pool, size=size, replace=False))))
    return found


def describe(samples: Samples, task: Task) -> Mapping[str, float]:
    """Return what the policies are trained and tested on."""
    return {
        "samples": len(samples.clip),
        "test_samples": int(task.test.sum()),
        "hand_share": float(samples.by_hand.mean()),
        "constant_loss": float((task.targets[task.test] ** 2).mean()),
    }
