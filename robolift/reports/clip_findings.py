"""Everything the page on a clip reward says, measured once, for the page and for machines."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from robolift.reports import clip_licenses, clip_model, clip_people, clip_reward, clip_validation
from robolift.reports.clip_headline import limits, tell
from robolift.reports.clip_licenses import Terms
from robolift.reports.clip_model import Model
from robolift.reports.clip_people import People
from robolift.reports.clip_reward import Clip, ClipSources
from robolift.reports.clip_validation import Validation
from robolift.reports.rewards_headline import Headline

EXTREMES = 10


@dataclass(frozen=True, kw_only=True)
class ClipFindings:
    """What was found; None stands for what was not given.

    Attributes:
        clips: The best first.
        method: How they were scored, a setting of ``score_clips``.
        limits: What the page cannot say, in sentences.
    """

    told: Headline
    clips: tuple[Clip, ...]
    method: str
    validation: Validation | None
    model: Model | None
    people: People | None
    terms: tuple[Terms, ...]
    limits: tuple[str, ...]

    @property
    def top(self) -> tuple[Clip, ...]:
        """The clips with the highest scores, the best first; none that is also among the lowest."""
        return self.clips[: min(EXTREMES, len(self.clips) - len(self.clips) // 2)]

    @property
    def bottom(self) -> tuple[Clip, ...]:
        """The clips with the lowest scores, the worst first."""
        return self.clips[::-1][: min(EXTREMES, len(self.clips) // 2)]


def find(sources: ClipSources) -> ClipFindings:
    """Read and measure everything.

    Raises:
        DataError: If outputs do not belong together, or a file is not as its stage writes it.
    """
    clips = clip_reward.load(sources)
    validation = clip_validation.read(sources.validation) if sources.validation else None
    model = clip_model.read(sources.model) if sources.model else None
    people = clip_people.read(sources.preferences, sources.pairs) if sources.preferences else None
    terms = clip_licenses.terms(clips)
    return ClipFindings(
        told=tell(clips, validation, model, people),
        clips=clips,
        method=str(sources.scores.config.get("method", "")),
        validation=validation,
        model=model,
        people=people,
        terms=terms,
        limits=tuple(limits(validation=validation, model=model, people=people, terms=terms)),
    )


def metrics(found: ClipFindings) -> dict[str, float | None]:
    """Return the numbers that the pipeline's interface lists."""
    numbers: dict[str, float | None] = {}
    if found.validation:
        numbers["rho"] = found.validation.rho.estimate
        numbers["passed"] = float(found.validation.passed)
        numbers |= {f"rho/{name}": one.estimate for name, one in found.validation.controls.items()}
    if found.model and found.model.held_out:
        numbers["pair_auc"] = found.model.held_out.auc.estimate
        numbers["expected_pair_auc"] = found.model.expected_auc
    if found.people:
        numbers |= {"agreement": found.people.alpha, "accuracy_ceiling": found.people.ceiling}
    return numbers


def summarize(found: ClipFindings) -> dict[str, Any]:
    """Return the numbers of the page for machines: summary.json."""
    scores = np.array([clip.score for clip in found.clips])
    model, people = found.model, found.people
    return {
        "headline": found.told.title,
        "detail": found.told.detail,
        "passed": found.validation.passed if found.validation else None,
        "clips": len(found.clips),
        "scores": {"mean": float(scores.mean()), "std": float(scores.std()), "median": float(np.median(scores))},
        "best": [clip.clip_id for clip in found.top],
        "worst": [clip.clip_id for clip in found.bottom],
        "validation": _validation(found.validation) if found.validation else None,
        "pair_auc": asdict(model.held_out.auc) if model and model.held_out else None,
        "expected_pair_auc": model.expected_auc if model else None,
        "accuracy": model.held_out.accuracy if model and model.held_out else None,
        "weights": {name: asdict(one) for name, one in model.weights.items()} if model else None,
        "people": {
            "annotators": len(people.persons),
            "answers": people.answers,
            "alpha": people.alpha,
            "consistency": people.consistency,
            "accuracy_ceiling": people.ceiling,
            "contradictions": len(people.contradictions),
        }
        if people
        else None,
        "licenses": [{**asdict(row), "kind": row.kind} for row in found.terms],
        "limits": list(found.limits),
    }


def _validation(found: Validation) -> dict[str, Any]:
    return {
        "rho": asdict(found.rho),
        "rho_min": found.rho_min,
        "subsets": found.num_subsets,
        "controls": {name: asdict(one) for name, one in found.controls.items()},
        "ablations": [{"drop": list(one.drop), "rho": one.rho, "loss": asdict(one.loss)} for one in found.ablations],
    }
