"""Why a run shows no clear gain over plain cloning: what its own numbers say about each link of the chain."""

from __future__ import annotations

from collections.abc import Sequence

from robolift.reports.estimator import Estimation
from robolift.reports.labels import LabelFacts
from robolift.reports.numbers import count, decimal, per_cent
from robolift.reports.success import TREATMENT, Comparison

WEAK_SKILL = 0.5
WEAK_AUC = 0.6
HIGH_SUCCESS = 0.9
LOW_SUCCESS = 0.1
FEW_STARTS = 50


def doubts(
    *,
    baseline: Comparison | None,
    comparisons: Sequence[Comparison],
    estimation: Estimation | None,
    label_facts: LabelFacts,
) -> list[str]:
    """Return the links that look weak, one sentence each, from the estimator to the evaluation.

    Args:
        baseline: The method against plain cloning, None when one of them was not evaluated.
        comparisons: The method against every other row.
        estimation: The progress estimator on episodes it has not seen, None without one.
        label_facts: The labels, with their truth where the recordings carry it.

    Returns:
        Empty when the method is clearly better or was not compared; never empty otherwise.
    """
    if baseline is None or baseline.verdict == "better":
        return []
    found = []
    if estimation and (estimation.skill is None or estimation.skill.low < WEAK_SKILL):
        removed = per_cent(estimation.removed) if estimation.skill else "an unknown share"
        found.append(
            f"The estimator removes {removed} of a constant's error on unseen episodes: advantages are differences of "
            "its values, so their errors are larger still."
        )
    truth = label_facts.truth
    if truth and truth.auc is not None and truth.auc < WEAK_AUC:
        found.append(f"The labels hardly follow the truth: AUC {decimal(truth.auc)}, where 0.5 is chance.")
    for one in comparisons:
        if one.second.variant == TREATMENT and one.second.condition == "negative" and one.verdict != "better":
            found.append(
                f"Asked for negative the policy succeeds in {per_cent(one.second.rate.estimate)}, asked for positive "
                f"in {per_cent(one.first.rate.estimate)}: the indicator does not steer it."
            )
    first, second = baseline.first.rate.estimate, baseline.second.rate.estimate
    if second >= HIGH_SUCCESS:
        found.append(f"Plain cloning already succeeds in {per_cent(second)}: little is left to gain.")
    if max(first, second) <= LOW_SUCCESS:
        found.append("Neither policy solves the task: both need more data or more training before labels matter.")
    if baseline.first.num_seeds < FEW_STARTS:
        found.append(f"Only {count(baseline.first.num_seeds)} starts were tried: the interval is wide.")
    return found or [
        "No link looks weak in these numbers. Another training seed or more evaluation starts would tell chance from "
        "effect."
    ]
