"""Everything the page on reward labels says, measured once, for the page and for machines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from robolift.reports import rewards, rewards_labeller, rewards_quality, rewards_reviews
from robolift.reports.labels import Bar
from robolift.reports.rewards import RewardFacts, RewardSources
from robolift.reports.rewards_headline import Headline, limits, tell
from robolift.reports.rewards_labeller import Labeller, Prices
from robolift.reports.rewards_measures import (
    Band,
    Ends,
    Sums,
    Unrewarded,
    bands,
    coverage,
    ends,
    reward_sums,
    unrewarded,
)
from robolift.reports.rewards_people import MAX_LISTED, Comparison, compare
from robolift.reports.rewards_quality import Quality
from robolift.reports.rewards_reviews import Reviews


@dataclass(frozen=True, kw_only=True)
class RewardFindings:
    """What was found; None and empty stand for what nobody said or measured.

    Attributes:
        reward: What the reward is made from, a setting of ``merge_rewards``; empty where another stage made the table.
        unrewarded: Where no reward is.
        covered: Frames by who labelled them.
        covered_by_task: The same for each task.
        limits: What the labels cannot say, in sentences.
    """

    facts: RewardFacts
    told: Headline
    reward: str
    unrewarded: Unrewarded
    covered: Bar
    covered_by_task: tuple[Bar, ...]
    bands: tuple[Band, ...]
    ends: Ends | None
    sums: tuple[Sums, ...]
    compared: Comparison | None
    quality: Quality | None
    labeller: Labeller | None
    reviews: Reviews | None
    limits: tuple[str, ...]

    @property
    def rewarded_share(self) -> float:
        """Share of frames with a reward."""
        return 1 - self.unrewarded.frames / self.facts.num_frames


def find(sources: RewardSources, prices: Prices) -> RewardFindings:
    """Read and measure everything.

    Args:
        sources: The outputs that the page is about.
        prices: What tokens cost.

    Raises:
        DataError: If outputs do not belong together, or a file is not as its stage writes it.
    """
    facts = rewards.load(sources)
    covered, by_task = coverage(facts)
    compared, missing = compare(facts), unrewarded(facts)
    quality = rewards_quality.read(sources.quality) if sources.quality else None
    labeller = rewards_labeller.read(sources.automatic, prices) if sources.automatic else None
    return RewardFindings(
        facts=facts,
        told=tell(facts, covered, quality, missing),
        reward=str(sources.rewards.config.get("reward", "")),
        unrewarded=missing,
        covered=covered,
        covered_by_task=by_task,
        bands=bands(facts),
        ends=ends(facts),
        sums=reward_sums(facts),
        compared=compared,
        quality=quality,
        labeller=labeller,
        reviews=rewards_reviews.read(sources.reviews) if sources.reviews else None,
        limits=tuple(limits(facts, covered, quality=quality, labeller=labeller, compared=compared)),
    )


def metrics(found: RewardFindings) -> dict[str, float | None]:
    """Return the numbers that the pipeline's interface lists."""
    numbers: dict[str, float | None] = {f"coverage/{part.name}": part.share for part in found.covered.segments}
    numbers["rewarded_share"] = found.rewarded_share
    if found.ends:
        numbers["success_auroc"] = found.ends.auroc
    if found.compared:
        numbers["disagreement"] = found.compared.share
    if found.labeller:
        numbers |= {cost.name: cost.spent for cost in found.labeller.costs}
    if found.quality:
        numbers |= {f"quality/{one.name}": one.value for one in found.quality.measures}
        numbers["quality/passed"] = float(found.quality.passed)
    return numbers


def summarize(found: RewardFindings) -> dict[str, Any]:
    """Return the numbers of the page for machines: summary.json."""
    return {
        "headline": found.told.title,
        "detail": found.told.detail,
        "passed": found.quality.passed if found.quality else None,
        "dataset": {"episodes": found.facts.num_episodes, "frames": found.facts.num_frames},
        "coverage": {part.name: part.share for part in found.covered.segments},
        "success_auroc": found.ends.auroc if found.ends else None,
        "progress_at_end": {band.outcome: float(band.median[-1]) for band in found.bands},
        "reward": {
            "made_from": found.reward,
            "known_share": found.rewarded_share,
            **{one.outcome: one.median for one in found.sums},
        },
        "disagreement": found.compared.share if found.compared else None,
        "most_contradicted": [one.episode for one in found.compared.episodes[:MAX_LISTED]] if found.compared else [],
        "quality": {one.name: _measure(one) for one in found.quality.measures} if found.quality else None,
        "labeller": _labeller(found.labeller),
        "people": _people(found.reviews),
        "limits": list(found.limits),
    }


def _measure(one: rewards_quality.Measure) -> dict[str, Any]:
    return {"value": one.value, "clock": one.clock, "threshold": one.threshold, "verdict": one.verdict}


def _labeller(labeller: Labeller | None) -> dict[str, Any] | None:
    if labeller is None:
        return None
    return {
        "settings": dict(labeller.settings),
        "spent": {cost.name: cost.spent for cost in labeller.costs},
        "errors": {failure.name: len(failure.episodes) for failure in labeller.failures},
    }


def _people(reviews: Reviews | None) -> dict[str, Any] | None:
    if reviews is None:
        return None
    return {
        "annotators": len(reviews.annotators),
        "episodes": reviews.used,
        "agreement": dict(reviews.agreement),
        "skips": len(reviews.skips),
    }
