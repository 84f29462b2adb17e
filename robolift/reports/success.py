"""What the evaluations say: success of every policy variant, differences between them, and the headline."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robolift import schema, storage
from robolift.errors import DataError
from robolift.manifest import FILES_FILE, Manifest
from robolift.reports.fairness import evaluation_settings
from robolift.reports.intervals import Interval, clustered, newcombe_paired, newcombe_unpaired, wilson

ROLLOUTS_FILE = "rollouts.parquet"
VIDEOS_FOLDER = "videos"
ROLLOUT_COLUMNS = ["condition", "prompt", "seed", "success", "length"]
UNCONDITIONED = "none"
POSITIVE = "positive"
BASELINE = "plain"
TREATMENT = "advantage"
CONDITIONED = frozenset({TREATMENT, "shuffled"})
"""Variants whose prompt carries a label."""

# variant: (name in a sentence, what it controls for)
VARIANTS: dict[str, tuple[str, str]] = {
    "plain": ("plain cloning", "Imitates every frame and knows nothing of labels. The baseline."),
    "filtered": ("successes only", "Imitates only the episodes that succeeded: what outcomes alone tell."),
    "human_only": ("human frames only", "Imitates only demonstrations and corrections."),
    "positive_only": ("positive frames only", "Imitates only the frames labelled positive, with no conditioning."),
    "weighted": ("weighted cloning", "Imitates every frame, each with the loss weight of its label."),
    "shuffled": (
        "shuffled labels",
        "Conditioned like the method, on labels shuffled among the ranked frames; those of people stay positive. "
        "Should do about as well as plain cloning.",
    ),
    "advantage": ("advantage conditioning", "Imitates every frame and is told whether its action was good."),
}
CONDITION_MEANINGS = {
    (TREATMENT, POSITIVE): "The method: imitates every frame, told which were good, and is asked for good ones.",
    (TREATMENT, "negative"): "The same weights asked for bad actions. Should fail: the indicator steers the policy.",
    (TREATMENT, "none"): "The same weights with no indicator in the prompt.",
}
_ORDER = ("plain", "shuffled", "filtered", "human_only", "positive_only", "weighted", "advantage")
_CONDITION_ORDER = ("none", "negative", "positive")


@dataclass(frozen=True, kw_only=True)
class Rollouts:
    """The closed-loop episodes of one policy under one condition; n episodes.

    Attributes:
        settings: How the episodes were run; episodes run in different ways are not pairs.
        videos: Address of the film of each seed that was filmed.
    """

    variant: str
    condition: str
    prompt: str
    training_seed: int | None
    seed: NDArray[np.int64]
    success: NDArray[np.bool_]
    length: NDArray[np.int64]
    settings: dict[str, Any]
    videos: dict[int, str]


@dataclass(frozen=True, kw_only=True)
class SuccessRow:
    """One line of the success table: a variant under a condition, pooled over training seeds.

    Attributes:
        rate: Success rate with Wilson's interval.
        mean_length: Mean number of steps of the successful episodes, None without any.
        is_method: Whether this is what the headline is about: the conditioned policy asked for its best.
        by_training_seed: Success rate of each trained policy, in order of its seed.
        pairs: (n, 2) training seed and evaluation seed of each episode; what makes two rows paired.
        success: (n,) outcome of each, in the order of ``pairs``.
        settings: How the episodes of each trained policy were run, in order of its seed.
    """

    variant: str
    condition: str
    prompts: tuple[str, ...]
    name: str
    meaning: str
    rate: Interval
    successes: int
    n: int
    num_seeds: int
    mean_length: float | None
    is_method: bool
    by_training_seed: tuple[float, ...]
    pairs: NDArray[np.int64]
    success: NDArray[np.bool_]
    settings: tuple[dict[str, Any], ...]

    @property
    def key(self) -> str:
        """Short name: the variant, with the condition where the policy was told one."""
        untold = self.condition == UNCONDITIONED and self.variant not in CONDITIONED
        return self.variant if untold else f"{self.variant}/{self.condition}"

    def facts(self) -> dict[str, Any]:
        """Return the row's numbers for summary.json."""
        return {
            "name": self.key,
            "variant": self.variant,
            "condition": self.condition,
            "is_method": self.is_method,
            "success_rate": self.rate.estimate,
            "ci_low": self.rate.low,
            "ci_high": self.rate.high,
            "successes": self.successes,
            "n": self.n,
            "evaluation_seeds": self.num_seeds,
            "mean_length": self.mean_length,
            "by_training_seed": list(self.by_training_seed),
        }

    @property
    def asked(self) -> str:
        """What the policy was asked for, in words; empty for a policy that knows no labels."""
        if self.variant in CONDITIONED:
            if self.condition == UNCONDITIONED:
                return "no indicator"
            return f"asked for {'slice ' if self.condition.isdigit() else ''}{self.condition}"
        return "" if self.condition == UNCONDITIONED else self.condition


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Success of ``first`` minus success of ``second``."""

    first: SuccessRow
    second: SuccessRow
    difference: Interval
    paired: bool

    def facts(self) -> dict[str, Any]:
        """Return the difference's numbers for summary.json."""
        return {
            "first": self.first.key,
            "second": self.second.key,
            "difference": self.difference.estimate,
            "ci_low": self.difference.low,
            "ci_high": self.difference.high,
            "paired": self.paired,
        }

    @property
    def verdict(self) -> str:
        """``better``, ``worse`` or ``unclear``, by whether the interval excludes zero."""
        if self.difference.low > 0:
            return "better"
        return "worse" if self.difference.high < 0 else "unclear"


def read_rollouts(evaluations: Sequence[Manifest]) -> list[Rollouts]:
    """Read the closed-loop evaluations; offline ones (which have no rollouts) are left out.

    Raises:
        DataError: If an evaluation's table lacks a column or is empty, or its policy does not say its variant.
    """
    found: list[Rollouts] = []
    for evaluation in evaluations:
        uri = evaluation.file(ROLLOUTS_FILE)
        if not storage.exists(uri):
            continue
        table = schema.read_parquet(uri)
        missing = [name for name in ROLLOUT_COLUMNS if name not in table.column_names]
        if missing or table.num_rows == 0:
            problem = f"columns {', '.join(missing)} are missing" if missing else "no episode was evaluated"
            raise DataError(problem, where=uri, expected=", ".join(ROLLOUT_COLUMNS), mend="evaluate the policy again")
        policy = evaluated_policies([evaluation])[0]
        videos = _videos(evaluation)
        columns = {name: table.column(name).to_pylist() for name in ("condition", "prompt")}
        condition = np.asarray(columns["condition"], dtype=object)
        for name in sorted(set(columns["condition"])):
            rows = np.flatnonzero(condition == name)
            found.append(
                Rollouts(
                    variant=str(policy.config["variant"]),
                    condition=name,
                    prompt=columns["prompt"][rows[0]],
                    training_seed=policy.seed,
                    seed=np.asarray(table.column("seed").to_numpy(), dtype=np.int64)[rows],
                    success=np.asarray(table.column("success").to_numpy(), dtype=bool)[rows],
                    length=np.asarray(table.column("length").to_numpy(), dtype=np.int64)[rows],
                    settings=evaluation_settings(evaluation),
                    videos=videos.get(name, {}),
                )
            )
    return found


def _videos(evaluation: Manifest) -> dict[str, dict[int, str]]:
    """Return the address of every film, by condition and seed: ``videos/<condition>/<seed>.mp4``."""
    found: dict[str, dict[int, str]] = {}
    for name in storage.read_json(evaluation.file(FILES_FILE)):
        parts = name.split("/")
        if parts[0] == VIDEOS_FOLDER and len(parts) == 3:
            found.setdefault(parts[1], {})[int(parts[2].removesuffix(".mp4"))] = evaluation.file(name)
    return found


def evaluated_policies(evaluations: Sequence[Manifest]) -> list[Manifest]:
    """Return the policies of the evaluations, each once, from the baseline to the method.

    Raises:
        DataError: If a policy does not say its variant.
    """
    found = {policy.digest: policy for evaluation in evaluations for policy in evaluation.parents("policy")}
    for policy in found.values():
        if "variant" not in policy.config:
            raise DataError("the policy does not say its variant", where=policy.uri, mend="train it again")
    return sorted(
        found.values(), key=lambda policy: (variant_place(policy.config["variant"]), policy.seed or 0, policy.digest)
    )


def success_rows(rollouts: Sequence[Rollouts]) -> list[SuccessRow]:
    """Pool the rollouts of each variant and condition, from the baseline to the method.

    Raises:
        DataError: If the same policy was evaluated twice on the same seed under the same condition.
    """
    groups: dict[tuple[str, str], list[Rollouts]] = {}
    for rollout in rollouts:
        groups.setdefault((rollout.variant, rollout.condition), []).append(rollout)
    method = best_condition({condition for variant, condition in groups if variant == TREATMENT})
    return [_pool(groups[key], is_method=key == (TREATMENT, method)) for key in sorted(groups, key=_place)]


def best_condition(conditions: Collection[str]) -> str | None:
    """Return the condition under which a conditioned policy is meant to act: positive, or the highest slice."""
    if POSITIVE in conditions:
        return POSITIVE
    return max((name for name in conditions if name.isdigit()), key=int, default=None)


def variant_place(variant: str) -> tuple[int, str]:
    """Return what sorts variants from the baseline to the method; unknown ones stand before the method."""
    return (_ORDER.index(variant) if variant in _ORDER else len(_ORDER) - 2), variant


def _place(key: tuple[str, str]) -> tuple[tuple[int, str], int, str]:
    variant, condition = key
    conditions = _CONDITION_ORDER.index(condition) if condition in _CONDITION_ORDER else len(_CONDITION_ORDER)
    return variant_place(variant), conditions, condition


def _pool(group: list[Rollouts], *, is_method: bool) -> SuccessRow:
    group = sorted(group, key=lambda one: -1 if one.training_seed is None else one.training_seed)
    first = group[0]
    training = np.concatenate([np.full(len(g.seed), -1 if g.training_seed is None else g.training_seed) for g in group])
    seed = np.concatenate([g.seed for g in group])
    order = np.lexsort([seed, training])
    pairs = np.stack([training, seed], axis=1)[order]
    if (np.diff(pairs, axis=0) == 0).all(axis=1).any():
        raise DataError(
            f"{first.variant} ({first.condition}) was evaluated twice on the same seed",
            expected="each seed once for each trained policy",
            mend="leave out the repeated evaluation",
        )
    success = np.concatenate([g.success for g in group])[order]
    lengths = np.concatenate([g.length for g in group])[order]
    name = VARIANTS.get(first.variant, (first.variant.replace("_", " "), ""))[0]
    meaning = CONDITION_MEANINGS.get((first.variant, first.condition)) or VARIANTS.get(first.variant, ("", ""))[1]
    return SuccessRow(
        variant=first.variant,
        condition=first.condition,
        prompts=tuple(sorted({g.prompt for g in group})),
        name=name,
        meaning=meaning,
        rate=_rate(success, pairs),
        successes=int(success.sum()),
        n=len(success),
        num_seeds=len(np.unique(seed)),
        mean_length=float(lengths[success].mean()) if success.any() else None,
        is_method=is_method,
        by_training_seed=tuple(float(g.success.mean()) for g in group),
        pairs=pairs,
        success=success,
        settings=tuple(g.settings for g in group),
    )


def _repeats(pairs: NDArray[np.int64]) -> bool:
    """Tell whether starts stand more than once, because several trained policies met them."""
    return len(np.unique(pairs[:, 1])) < len(pairs)


def _rate(success: NDArray[np.bool_], pairs: NDArray[np.int64]) -> Interval:
    if _repeats(pairs):
        return clustered(success.astype(float), pairs[:, 1])
    return wilson(int(success.sum()), len(success))


def compare(first: SuccessRow, second: SuccessRow) -> Comparison:
    """Return the difference of two rows, paired when both saw the same seeds under the same settings."""
    paired = np.array_equal(first.pairs, second.pairs) and first.settings == second.settings
    if paired and _repeats(first.pairs):
        difference = clustered(first.success.astype(float) - second.success, first.pairs[:, 1])
    elif paired:
        difference = newcombe_paired(first.success, second.success)
    else:
        difference = newcombe_unpaired((first.successes, first.n), (second.successes, second.n))
    return Comparison(first=first, second=second, difference=difference, paired=paired)


def comparisons(rows: Sequence[SuccessRow]) -> list[Comparison]:
    """Compare the method with every other row; empty when the method was not evaluated."""
    method = next((row for row in rows if row.is_method), None)
    return [compare(method, row) for row in rows if row is not method] if method else []


def against_baseline(found: Sequence[Comparison]) -> Comparison | None:
    """Return the comparison with plain cloning, None when that was not evaluated."""
    return next((one for one in found if one.second.variant == BASELINE), None)
