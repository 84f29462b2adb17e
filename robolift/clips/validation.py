"""Do scores foretell how useful clips are? Correlation of a subset's mean score with what training on it gives."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from robolift import schema
from robolift.clips.inputs import check_same_clips, numbers
from robolift.errors import DataError
from robolift.manifest import Manifest

MIN_SUBSETS = 50
"""With fewer the interval of a correlation is too wide to pass."""
Z_95 = 1.959963984540054


def read_scores(manifest: Manifest, clip_ids: Sequence[str]) -> np.ndarray:
    """Return the scores of clips in the order of ``clip_ids``, (n,) float64.

    Raises:
        DataError: If they are of other clips, or not finite.
    """
    uri = manifest.file("scores.parquet")
    table = schema.read_parquet(uri)
    found = dict(zip(table.column("clip_id").to_pylist(), numbers(table, "score").tolist(), strict=True))
    check_same_clips(tuple(found), clip_ids, where=uri)
    scores = np.array([found[clip_id] for clip_id in clip_ids])
    wrong = np.flatnonzero(~np.isfinite(scores))
    if len(wrong):
        raise DataError(
            f"{len(wrong)} scores are not finite", where=f"{uri}: first clip {clip_ids[wrong[0]]}", expected="numbers"
        )
    return scores


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcomes:
    """What training on the stratified subsets gave, in the order of their numbers.

    Attributes:
        subset: (K,) numbers.
        clips: (K,) the clips of each.
        delta_m: (K,) dM(S) = M(S) - mean of M over the random subsets, M being the mean over seeds.
        baseline: That mean.
        baseline_std: Spread of M over the random subsets.
    """

    subset: tuple[int, ...]
    clips: tuple[tuple[str, ...], ...]
    delta_m: np.ndarray
    baseline: float
    baseline_std: float

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]], *, where: str) -> Outcomes:
        """Gather rows of ``downstream.parquet``, in any order.

        Raises:
            DataError: If a training stands twice, subsets differ in seeds, or there is no random or stratified one.
        """
        by_subset: dict[int, dict[int, Mapping[str, Any]]] = {}
        for row in rows:
            seeds = by_subset.setdefault(row["subset"], {})
            if row["seed"] in seeds:
                raise DataError(f"subset {row['subset']} with seed {row['seed']} stands twice", where=where)
            seeds[row["seed"]] = row
        if len({tuple(sorted(seeds)) for seeds in by_subset.values()}) > 1:
            raise DataError("subsets were trained with different seeds", where=where, expected="the same for all")
        m = {number: float(np.mean([seeds[s]["m"] for s in sorted(seeds)])) for number, seeds in by_subset.items()}
        first = {number: seeds[min(seeds)] for number, seeds in sorted(by_subset.items())}
        strata = [number for number, row in first.items() if row["group"] == "stratum"]
        random = np.array([m[number] for number, row in first.items() if row["group"] == "random"])
        if len(strata) < 3 or not len(random):
            raise DataError(
                f"{len(strata)} stratified and {len(random)} random subsets",
                where=where,
                expected="at least three and one",
            )
        baseline = float(random.mean())
        return cls(
            subset=tuple(strata),
            clips=tuple(tuple(first[number]["clips"]) for number in strata),
            delta_m=np.array([m[number] for number in strata]) - baseline,
            baseline=baseline,
            baseline_std=float(random.std()),
        )

    def mean_scores(self, scores: Mapping[str, float]) -> np.ndarray:
        """Return the mean score of each subset, (K,)."""
        return np.array([np.mean([scores[clip_id] for clip_id in clips]) for clips in self.clips])


@dataclass(frozen=True, kw_only=True)
class Chance:
    """What shuffled scores reach.

    Attributes:
        upper: Upper end of the interval of their rho.
        share_as_good: Share of them that reach what the scores reach.
    """

    upper: float
    share_as_good: float


def ranks(values: np.ndarray) -> np.ndarray:
    """Return ranks from 1 along the last axis; equal values share the mean of theirs."""
    ordered = np.sort(values, axis=-1)
    flat, rows = ordered.reshape(-1, ordered.shape[-1]), values.reshape(-1, values.shape[-1])
    pairs = zip(flat, rows, strict=True)
    found = [(np.searchsorted(o, v, side="left") + np.searchsorted(o, v, side="right") + 1) / 2 for o, v in pairs]
    return np.reshape(found, values.shape)


def pearson(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the correlation along the last axis; 0 where one side is constant, which foretells nothing."""
    a = first - first.mean(axis=-1, keepdims=True)
    b = second - second.mean(axis=-1, keepdims=True)
    size_a, size_b = (np.sqrt((side**2).sum(axis=-1)) for side in (a, b))
    # Constants leave rounding behind.
    flat = (size_a <= 1e-12 * np.abs(first).max(axis=-1)) | (size_b <= 1e-12 * np.abs(second).max(axis=-1))
    return np.asarray(np.where(flat, 0.0, (a * b).sum(axis=-1) / np.where(flat, 1.0, size_a * size_b)))


def spearman(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the correlation of ranks along the last axis."""
    return pearson(ranks(first), ranks(second))


@dataclass(frozen=True, kw_only=True, eq=False)
class Resamples:
    """One draw of bootstrap samples over subsets, shared by all scores, so that they can be compared in pairs.

    Attributes:
        rows: (samples, K) which subsets are in each.
        confidence: Of the intervals.
    """

    rows: np.ndarray
    confidence: float

    @classmethod
    def draw(cls, num_subsets: int, *, samples: int, confidence: float, seed: int) -> Resamples:
        """Draw ``samples`` samples of ``num_subsets`` subsets with replacement."""
        rng = np.random.default_rng([seed, num_subsets])
        return cls(rows=rng.integers(num_subsets, size=(samples, num_subsets)), confidence=confidence)

    def interval(self, values: np.ndarray) -> tuple[float, float]:
        """Return the percentile interval of a statistic that was worked out for each sample, (samples,)."""
        low, high = np.quantile(values, [(1 - self.confidence) / 2, (1 + self.confidence) / 2])
        return float(low), float(high)


def correlation(mean_score: np.ndarray, delta_m: np.ndarray, resamples: Resamples) -> dict[str, Any]:
    """Return rho of mean score and dM with bootstrap intervals: Spearman's (``rho``, the one that counts), Pearson's.

    Spearman's counts because what one does with scores is to take the best clips: their order matters, not their
    spacing.
    """
    x, y = mean_score[resamples.rows], delta_m[resamples.rows]
    low, high = resamples.interval(spearman(x, y))
    pearson_low, pearson_high = resamples.interval(pearson(x, y))
    rho = float(spearman(mean_score, delta_m))
    return {
        "rho": rho,
        "lower": low,
        "upper": high,
        "spearman": rho,
        "pearson": float(pearson(mean_score, delta_m)),
        "pearson_lower": pearson_low,
        "pearson_upper": pearson_high,
        "subsets": len(delta_m),
    }


def chance(outcomes: Outcomes, scores: Mapping[str, float], rho: float, *, resamples: Resamples, seed: int) -> Chance:
    """Return what scores that know nothing reach on the same subsets: the same scores, dealt out among the clips anew.

    No clip is in two subsets, so this is what chance makes of rho; it rests on no approximation, as the bootstrap does.

    Args:
        outcomes: Of the subsets.
        scores: By clip.
        rho: What the scores reach as they are.
        resamples: Says how many times to shuffle and which quantile to give.
        seed: Of the shuffling.
    """
    names = sorted({clip_id for clips in outcomes.clips for clip_id in clips})
    index = {clip_id: place for place, clip_id in enumerate(names)}
    values = np.array([scores[clip_id] for clip_id in names])
    members = [[index[clip_id] for clip_id in clips] for clips in outcomes.clips]
    rng = np.random.default_rng([seed, len(names)])
    shuffled = np.array([rng.permutation(values) for _ in resamples.rows])
    means = np.stack([shuffled[:, rows].mean(axis=1) for rows in members], axis=1)
    found = spearman(means, np.broadcast_to(outcomes.delta_m, means.shape))
    return Chance(upper=resamples.interval(found)[1], share_as_good=float((found >= rho).mean()))


def drop_in_rho(
    full: np.ndarray, ablated: np.ndarray, delta_m: np.ndarray, resamples: Resamples, *, drop_min: float
) -> dict[str, Any]:
    """Return how much of rho is lost when features are left out, with a paired bootstrap interval.

    Both scores are correlated with the same outcomes of the same resampled subsets: two correlations that were measured
    apart would differ by a standard deviation of 0.1 at 100 subsets for no reason.

    Args:
        full: (K,) mean score of each subset by the whole reward.
        ablated: (K,) the same by the reward without some features.
        delta_m: (K,).
        resamples: Of the subsets.
        drop_min: Smallest drop that counts.
    """
    x, z, y = full[resamples.rows], ablated[resamples.rows], delta_m[resamples.rows]
    low, high = resamples.interval(spearman(x, y) - spearman(z, y))
    rho = float(spearman(ablated, delta_m))
    drop = float(spearman(full, delta_m)) - rho
    return {
        "rho": rho,
        "drop_in_rho": drop,
        "lower": low,
        "upper": high,
        "passed": bool(drop >= drop_min and low > 0),
    }


def fisher_interval(rho: float, num: int) -> tuple[float, float] | None:
    """Return the 95 % interval of a correlation ``rho`` measured on ``num`` subsets, None below four.

    tanh(atanh(rho) ± 1.96 / sqrt(num - 3)), for independent normal pairs (Fisher 1921): what so many subsets can tell
    at best. At rho = 0.5: [0.07, 0.77] of 20, [0.26, 0.68] of 50, [0.34, 0.63] of 100.
    """
    if num < 4 or abs(rho) >= 1:
        return None
    centre, half = math.atanh(rho), Z_95 / math.sqrt(num - 3)
    return math.tanh(centre - half), math.tanh(centre + half)


def failures(found: Mapping[str, Any], by_chance: Chance, *, rho_min: float) -> list[str]:
    """Return why a reward does not pass, empty if it does."""
    reasons = []
    if found["rho"] < rho_min:
        reasons.append(f"rho {found['rho']:.3f} is below {rho_min}")
    if found["lower"] <= 0:
        reasons.append(f"the interval of rho, [{found['lower']:.3f}, {found['upper']:.3f}], is not above 0")
    if found["rho"] <= by_chance.upper:
        reasons.append(f"shuffled scores reach a rho of {by_chance.upper:.3f} too")
    if found["subsets"] < MIN_SUBSETS:
        reasons.append(f"{found['subsets']} subsets are fewer than {MIN_SUBSETS}")
    return reasons
