"""The page's first sentences, whether a reward foretells usefulness, and its last, what limits that."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from robolift.reports.clip_licenses import CLOSED, UNKNOWN, Terms
from robolift.reports.clip_model import Model
from robolift.reports.clip_people import People
from robolift.reports.clip_reward import Clip
from robolift.reports.clip_validation import Validation
from robolift.reports.intervals import Interval
from robolift.reports.numbers import count, decimal
from robolift.reports.rewards_headline import Headline

FEW_PAIRS = 50
"""Held-out pairs below which a pair-AUC has an interval of about a quarter."""


def told_interval(one: Interval) -> str:
    """Return ``0.74 (0.62 to 0.83)``."""
    return f"{decimal(one.estimate)} ({decimal(one.low)} to {decimal(one.high)})"


def tell(clips: Sequence[Clip], validation: Validation | None, model: Model | None, people: People | None) -> Headline:
    """Say in one sentence whether the reward foretells how useful clips are, and why in a few more."""
    sentences = [_foretells(validation), _against_controls(validation), _agrees(model, people)]
    reach = f"{count(len(clips))} clips of {count(len({clip.video_id for clip in clips}))} videos are scored."
    return Headline(title=_verdict(validation), detail=" ".join(filter(None, [*sentences, reach])))


def _verdict(validation: Validation | None) -> str:
    if validation is None:
        return "Nobody measured whether this reward foretells how useful clips are"
    rho = f"ρ = {told_interval(validation.rho)}"
    if not validation.passed:
        return f"Do not use this reward: with {rho} it is not shown to foretell how useful clips are"
    name = validation.best_control
    if name is None:
        return f"This reward foretells how useful clips are: {rho}"
    words, control = name.replace("_", " "), validation.controls[name].estimate
    if control >= validation.rho.estimate:
        return f"This reward passes with {rho}, but {words} alone foretells usefulness as well: {decimal(control)}"
    return f"This reward foretells how useful clips are: {rho}, against {decimal(control)} of {words} alone"


def _foretells(validation: Validation | None) -> str:
    if validation is None:
        return ""
    rho = (
        f"Over {count(validation.num_subsets)} subsets of clips, their mean reward and what training on them gains "
        f"correlate with ρ = {told_interval(validation.rho)}; at least {decimal(validation.rho_min)} was asked."
    )
    return " ".join([rho, *(f"{reason[0].upper()}{reason[1:]}." for reason in validation.reasons)])


def _against_controls(validation: Validation | None) -> str:
    if validation is None or not validation.controls:
        return ""
    told = [f"{name.replace('_', ' ')} {decimal(one.estimate)}" for name, one in validation.controls.items()]
    return f"Scores that nobody learned reach: {', '.join(told)}."


def _agrees(model: Model | None, people: People | None) -> str:
    if model is None or model.held_out is None:
        return ""
    told = f"It orders pairs that it was not trained on with AUC {told_interval(model.held_out.auc)}"
    if model.expected_auc is not None:
        told += f"; the true order is expected to reach about {decimal(model.expected_auc)}"
    accuracy = f"It agrees with {decimal(model.held_out.accuracy)} of the answers"
    if people and people.ceiling is not None:
        accuracy += f", and people's consistency allows about {decimal(people.ceiling)}"
    return f"{told}. {accuracy}."


def limits(
    *,
    validation: Validation | None,
    model: Model | None,
    people: People | None,
    terms: Sequence[Terms],
) -> Iterator[str]:
    """Yield what the page cannot say, in sentences."""
    if validation is not None:
        yield (
            "Usefulness is what a small policy gains that learns hands' movements in these videos; no robot was "
            "trained, so nothing here says what the clips are worth to one."
        )
        yield (
            "No clip is in two subsets, but a participant is in many, and all are tested on the same ones: the "
            "interval of ρ is about other clips of these participants, not about others. By chance, the same scores, "
            f"dealt out among the clips at random, reach up to {decimal(validation.shuffled)}."
        )
        yield (
            "People compared some of the clips that the subsets are drawn from, so ρ is that of clips like those "
            "compared; the policies' errors, which it is measured by, were never seen by the reward."
        )
        if validation.power is not None:
            low, high = (decimal(end) for end in validation.power)
            yield (
                f"{count(validation.num_subsets)} subsets could give a correlation of just "
                f"{decimal(validation.rho_min)} an interval of {low} to {high}, no narrower."
            )
        unsure = [one.name for one in validation.ablations if one.loss.low <= 0 <= one.loss.high]
        if unsure:
            yield f"Whether a feature matters is open where the interval of its loss holds 0: {'; '.join(unsure)}."
    yield from _model_limits(model)
    yield from _people_limits(people)
    closed, unknown = (sum(row.clips for row in terms if row.kind == kind) for kind in (CLOSED, UNKNOWN))
    if closed:
        yield f"The licence of {count(closed)} clips forbids commercial use, perhaps of what is trained on them too."
    if unknown:
        yield f"The licence of {count(unknown)} clips is not known."


def _model_limits(model: Model | None) -> Iterator[str]:
    if model is None:
        return
    if model.held_out is None:
        yield "No decided pair lies within held-out videos, so the model was not measured on what it never saw."
    elif model.held_out.pairs < FEW_PAIRS:
        yield f"Only {count(model.held_out.pairs)} held-out pairs measure the model: its AUC is uncertain."
    if model.embedding:
        yield (
            f"Besides named features the model sees {count(model.embedding)} numbers of the pictures' embedding, "
            "whose weights have no meaning of their own."
        )


def _people_limits(people: People | None) -> Iterator[str]:
    if people is None:
        return
    if len(people.persons) == 1:
        yield "One person compared the clips: the reward is that person's taste."
    if people.alpha is None:
        yield "No pair was answered by two people, so nothing says whether they agree."
    if people.ceiling is None:
        yield "No pair was shown twice, so nothing says how consistent people are, nor what a model can reach."
    if people.num_proposed is not None and people.pairs < people.num_proposed:
        yield (
            f"{count(people.pairs)} of {count(people.num_proposed)} proposed pairs are answered; "
            "nothing was learned of the others."
        )
