"""The sentence a reader takes away, and what must be said beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from robolift import storage
from robolift.manifest import Manifest
from robolift.reports.estimator import Estimation
from robolift.reports.frames import FrameFacts
from robolift.reports.numbers import count, interval_points, per_cent, points
from robolift.reports.success import Comparison, SuccessRow, evaluated_policies

OBJECT_STATE = "observation.environment_state"
PIXELS, STATE = "pixels", "state"
SIMULATORS = {"metaworld": "Meta\u2011World"}


@dataclass(frozen=True, kw_only=True)
class Headline:
    """The main sentence and the line below it."""

    title: str
    detail: str


def write_headline(
    rows: Sequence[SuccessRow], baseline: Comparison | None, frames: FrameFacts, *, setting: str, learned: str = ""
) -> Headline:
    """Say what the run showed, no more than its numbers carry.

    Args:
        rows: The success table, empty when nothing was evaluated in closed loop.
        baseline: The method against plain cloning, None when one of them was not evaluated.
        frames: The labelled frames, spoken of when there is no evaluation.
        setting: Task and observations, in a few words.
        learned: A sentence on the progress estimator, empty without one.
    """
    if baseline is not None:
        return _against(baseline, setting, learned)
    if rows:
        best = next((row for row in rows if row.is_method), rows[-1])
        low, high = per_cent(best.rate.low), per_cent(best.rate.high)
        detail = _sentences(f"95\u202f% interval {low} to {high} over {count(best.n)} episodes.", learned, setting)
        return Headline(title=f"{_capital(best.name)}: {per_cent(best.rate.estimate)} success", detail=detail)
    evaluated = f"From {count(frames.num_episodes)} episodes; no policy was evaluated in closed loop."
    detail = _sentences(evaluated, learned, setting)
    return Headline(title=f"{count(frames.num_frames)} frames labelled by their advantage", detail=detail)


def _against(baseline: Comparison, setting: str, learned: str) -> Headline:
    first, second = baseline.first, baseline.second
    ours, theirs = per_cent(first.rate.estimate), per_cent(second.rate.estimate)
    title = {
        "better": f"{_capital(first.name)}: {ours} success against {theirs} for {second.name}",
        "worse": f"{_capital(first.name)} does worse: {ours} success against {theirs} for {second.name}",
        "unclear": f"No clear difference: {first.name} {ours}, {second.name} {theirs} success",
    }[baseline.verdict]
    difference = points(baseline.difference.estimate)
    over = f"{count(first.n)} and {count(second.n)} episodes"
    if baseline.paired:
        trainings = len(first.by_training_seed)
        over = f"the same {count(first.num_seeds)} starts" + (f", with {trainings} trainings" if trainings > 1 else "")
    interval = f"95\u202f% interval {interval_points(baseline.difference)}"
    return Headline(title=title, detail=_sentences(f"{difference} points ({interval}) over {over}.", learned, setting))


def _sentences(result: str, learned: str, setting: str) -> str:
    return " ".join(part for part in (result, learned, f"{_capital(setting)}.") if part)


def describe_estimator(found: Estimation) -> str:
    """Return a sentence on how a progress estimator does against the best constant, on episodes it has not seen."""
    num = len(found.numbers)
    episodes = f"{count(num)} unseen episode{'s' if num != 1 else ''}"
    if found.verdict == "better":
        return f"The progress estimator removes {per_cent(found.removed)} of a constant's error on {episodes}."
    words = {"worse": "does worse than a constant", "unclear": "is not clearly better than a constant"}
    return f"The progress estimator {words[found.verdict]} on {episodes}."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def observations(evaluations: Sequence[Manifest]) -> str:
    """Return ``pixels``, ``state`` or ``pixels and state``: what the evaluated policies see; empty without any."""
    seen: set[str] = set()
    for policy in evaluated_policies(evaluations):
        seen |= _seen_by(storage.read_json(policy.file("policy.json")))
    return " and ".join(sorted(seen))


def value_observations(checkpoint: Manifest | None) -> str:
    """Return the same of the value model; empty without one."""
    return " and ".join(sorted(_seen_by(storage.read_json(checkpoint.file("checkpoint.json"))))) if checkpoint else ""


def _seen_by(document: dict[str, Any]) -> set[str]:
    # The arm's own pose is not what is meant by state: a robot always knows it.
    blind = not document.get("cameras")
    knows_objects = blind or OBJECT_STATE in document.get("state_keys", [])
    return {name for name, seen in ((PIXELS, not blind), (STATE, knows_objects)) if seen}


def describe_setting(simulator: dict[str, Any] | None, seen: str) -> str:
    """Return task and observations in a few words."""
    place = "recorded episodes"
    if simulator:
        name = str(simulator.get("simulator", "a simulator"))
        place = f"task {simulator.get('task', 'unnamed')} in {SIMULATORS.get(name, name)}"
    sees = {PIXELS: "policies see camera pixels", STATE: "policies see low-dimensional state (OBS=state), no pixels"}
    return "; ".join(part for part in (place, sees.get(seen, f"policies see {seen}" if seen else "")) if part)


def limits(
    rows: Sequence[SuccessRow],
    found: Sequence[Comparison],
    *,
    simulator: dict[str, Any] | None,
    seen: str,
    value_seen: str,
    differing: Sequence[str],
    value_held_out: bool,
    annotated: bool = False,
) -> list[str]:
    """Return what a careful reader should know before believing the headline, one sentence or two each."""
    notes = []
    seeds = max((len(row.by_training_seed) for row in rows), default=0)
    if seeds == 1:
        notes.append(
            "Each policy was trained once. The intervals cover chance among evaluation episodes, not among trainings."
        )
    elif seeds > 1:
        notes.append(
            "Intervals pool the training seeds and resample starts; they cover chance among starts, not all of that "
            "among trainings."
        )
    if differing:
        notes.append(
            f"The policies differ in more than their variant: {', '.join(differing)}. "
            "The comparison is not of what they imitate alone."
        )
    readers = [who for who, what in (("policies", seen), ("value model", value_seen)) if STATE in what]
    if readers and simulator:
        notes.append(
            f"{_capital(' and '.join(readers))} read object positions from the simulator (OBS=state), "
            "which cameras do not give directly."
        )
    if simulator:
        notes.append(
            f"One simulated task ({simulator.get('task', 'unnamed')}) with scripted clumsiness and corrections; "
            "nothing here ran on a robot."
        )
        if annotated:
            notes.append("Annotated progress comes from the simulator's state; what people annotate is coarser.")
    if any(not one.paired for one in found):
        notes.append("Not all policies were evaluated on the same seeds; those differences use unpaired intervals.")
    if rows:
        notes.append(
            "Conditioning selects among actions that are in the data. Where every rollout does the same thing there is "
            "nothing better to select, and enough clean demonstrations can beat it."
        )
    else:
        notes.append("No closed-loop evaluation was given: labels alone do not show that a policy gets better.")
    if not value_held_out:
        notes.append("Value quality counts all episodes, those that the value model was trained on among them.")
    return notes
