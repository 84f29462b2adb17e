"""The page's first sentences, whether reward labels can be trained on and why, and its last, what limits that."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from robolift.reports.labels import Bar
from robolift.reports.numbers import count, per_cent
from robolift.reports.rewards import FAILURE, SUCCESS, UNKNOWN, RewardFacts
from robolift.reports.rewards_labeller import Labeller
from robolift.reports.rewards_measures import SOURCE_NAMES, Unrewarded
from robolift.reports.rewards_people import Comparison
from robolift.reports.rewards_quality import Measure, Quality

RECORDED = SOURCE_NAMES["heuristic"]
MAX_NAMED = 8
FEW = 10
"""Episodes of an outcome below which measures that compare outcomes say little."""


@dataclass(frozen=True, kw_only=True)
class Headline:
    """What is said first."""

    title: str
    detail: str


def tell(facts: RewardFacts, covered: Bar, quality: Quality | None, missing: Unrewarded) -> Headline:
    """Say in one sentence whether the labels can be trained on, and why in a few more."""
    frames, episodes = count(facts.num_frames), _number_of(facts.num_episodes, "episode")
    shares = {part.name: part.share for part in covered.segments}
    recorded = shares.get(RECORDED)
    parts = [part for part in covered.segments if part.name not in (RECORDED, "nobody")]
    if not parts:
        rest = f" {per_cent(recorded)} of frames carry the recorded outcome, and nothing else." if recorded else ""
        return Headline(
            title="Nothing is labelled, so there is nothing to train on",
            detail=f"Neither a model nor people said anything about {episodes}.{rest}",
        )
    who = ", ".join(f"{part.name} {per_cent(part.share)}" for part in parts)
    alone = f"; {per_cent(recorded)} carry the recorded outcome alone" if recorded else ""
    reach = (
        f"{per_cent(sum(part.share for part in parts))} of {frames} frames in {episodes} are labelled ({who}){alone}."
    )
    measured = (_missed(quality), _against_clock(quality)) if quality else ("", "")
    detail = " ".join(filter(None, (measured[0], reach, _unrewarded(facts, missing), measured[1])))
    return Headline(title=_title(facts, quality, missing), detail=detail)


def _title(facts: RewardFacts, quality: Quality | None, missing: Unrewarded) -> str:
    if quality and not quality.passed:
        return _verdict(quality)
    if missing.frames == facts.num_frames:
        return "These labels cannot be trained on: no frame has a reward"
    if missing.frames:
        some = f"{count(missing.frames)} of {count(facts.num_frames)} frames"
        return f"These labels cannot be trained on: {some} have no reward"
    return _verdict(quality) if quality else "Nobody measured whether these labels can be trained on"


def _unrewarded(facts: RewardFacts, missing: Unrewarded) -> str:
    if not missing.frames:
        return ""
    if missing.frames == facts.num_frames:
        return "No frame has a reward."
    shown = ", ".join(str(episode) for episode in missing.episodes[:MAX_NAMED])
    more = " and more" if len(missing.episodes) > MAX_NAMED else ""
    return (
        f"{count(missing.frames)} frames have no reward: in {_number_of(len(missing.episodes), 'episode')} "
        f"({shown}{more})."
    )


def _number_of(number: int, what: str) -> str:
    return f"{count(number)} {what}{'' if number == 1 else 'es' if what.endswith('s') else 's'}"


def _verdict(quality: Quality) -> str:
    demanded = len(quality.demanded)
    if not quality.passed:
        return f"Do not train on these labels: they miss {len(quality.failed)} of {_number_of(demanded, 'threshold')}"
    if quality.against_clock(better=False) and not quality.against_clock(better=True):
        return "These labels pass, but are no better than a clock: training on them teaches the time"
    if not demanded:
        return "These labels can be trained on only in that no threshold was set"
    met = "the one threshold" if demanded == 1 else f"all {demanded} thresholds"
    return f"These labels can be trained on: they meet {met}"


def _missed(quality: Quality) -> str:
    told = [f"{_in_sentence(one)} is {one.text(one.value)}, {one.asked} was asked" for one in quality.failed]
    return f"Missed: {'; '.join(told)}." if told else ""


def _against_clock(quality: Quality) -> str:
    sentences = []
    for better, start in ((True, "Better than a clock"), (False, "No better")):
        found = quality.against_clock(better=better)
        if found:
            told = ", ".join(
                f"{_in_sentence(one)} {one.text(one.value)} against {one.text(one.clock)}" for one in found
            )
            sentences.append(f"{start}: {told}.")
    return " ".join(sentences)


def _in_sentence(measure: Measure) -> str:
    return measure.title[0].lower() + measure.title[1:]


def limits(
    facts: RewardFacts,
    covered: Bar,
    *,
    quality: Quality | None,
    labeller: Labeller | None,
    compared: Comparison | None,
) -> list[str]:
    """Return what the labels cannot say, in sentences."""
    if not facts.merged.is_labelled.any():
        return ["Nothing is labelled: there is nothing whose limits could be told."]
    notes = [_opinion(facts, labeller), *_asked(facts), *_checked(facts, compared)]
    notes += _outcomes(facts)
    recorded = next((part for part in covered.segments if part.name == RECORDED), None)
    if recorded:
        notes.append(
            f"{per_cent(recorded.share)} of frames carry the recorded outcome because nobody said more about them."
        )
    if not np.isfinite(facts.merged.reward).any():
        notes.append("No frame has a reward: nobody said what it is to be made from.")
    if labeller and labeller.calibration == "isotonic":
        notes.append(
            "The map from the model's score to success was fitted on ends of these very episodes, so what compares "
            "outcomes is somewhat too good; on new recordings it may be worse."
        )
    if quality is None:
        notes.append("No quality measures were given: whether the labels are any good is not known.")
    else:
        free = [_in_sentence(one) for one in quality.measures if one.threshold is not None and not one.demands]
        if free:
            notes.append(f"No threshold was set for: {', '.join(free)}. Passing says nothing about them.")
    return notes


def _opinion(facts: RewardFacts, labeller: Labeller | None) -> str:
    if facts.model is None:
        return "A progress label is an opinion of the people who gave it. No model was asked."
    if labeller is None:
        return (
            "A progress label is an opinion of a model, no measurement. These were made elsewhere and imported: what "
            "was asked, and which answers were dropped, is not known here."
        )
    cameras = len(labeller.settings.get("cameras") or facts.dataset.cameras)
    views = "one camera" if cameras == 1 else f"{cameras} cameras"
    return (
        f"A progress label is an opinion of {labeller.name}, asked with one prompt about at most "
        f"{labeller.settings.get('max_frames', 'a few')} moments at once through {views}. It is no measurement. What "
        "the pictures do not show, such as force or what happens between two of them, it cannot know; published "
        "models also over-reward shortcuts (arXiv 2606.01036)."
    )


def _asked(facts: RewardFacts) -> list[str]:
    if facts.model is None:
        return []
    labelled, asked = int(facts.model.is_labelled.sum()), int((facts.model.anchor & facts.model.is_labelled).sum())
    return [
        f"The model was asked about {count(asked)} of the {count(labelled)} frames that carry its label; what lies "
        "between is interpolated."
    ]


def _checked(facts: RewardFacts, compared: Comparison | None) -> list[str]:
    if facts.model is None:
        return []
    if compared is None:
        return ["Nobody checked the model: there are no people's labels to hold against it."]
    if not compared.frames:
        return ["People marked no stretch of which the model says something, so its progress is unchecked."]
    return [f"People checked its progress in {_number_of(compared.num_compared, 'episode')}; the rest is unchecked."]


def _outcomes(facts: RewardFacts) -> list[str]:
    notes = []
    unknown = len(facts.episodes_of(UNKNOWN))
    if unknown:
        notes.append(f"Nobody knows how {_number_of(unknown, 'episode')} ended: no comparison of outcomes counts them.")
    overruled = int(np.sum(facts.recorded != facts.outcome))
    if overruled:
        notes.append(
            f"{_number_of(overruled, 'episode')} ended otherwise than recorded, or without a record, as people say; "
            "their judgement counts."
        )
    for code, name in ((SUCCESS, "success"), (FAILURE, "failure")):
        number = len(facts.episodes_of(code))
        if number == 0:
            notes.append(f"There is no {name}, so nothing says whether labels tell successes from failures.")
        elif number < FEW:
            notes.append(f"Known by outcome: only {_number_of(number, name)}, so what compares outcomes is uncertain.")
    return notes
