"""Which episodes the page on reward labels shows, chosen by rule and not by eye."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from robolift.reports.rewards import FAILURE, PEOPLE, SUCCESS, RewardFacts
from robolift.reports.rewards_labeller import Labeller
from robolift.reports.rewards_measures import end_scores
from robolift.reports.rewards_people import Comparison


@dataclass(frozen=True, kw_only=True)
class Example:
    """An episode to show, and why."""

    kind: str
    title: str
    why: str
    episode: int


def pick(facts: RewardFacts, compared: Comparison | None, labeller: Labeller | None) -> list[Example]:
    """Pick at most four episodes, each once; kinds that are absent are left out.

    They are the success and the failure that the model rates highest in their last frame (the best that it does, and
    the worst), or without a model the first that people labelled; the episode that people contradict most; and one
    without usable labels. Of equals the first.
    """
    found: list[Example] = []
    taken: set[int] = set()

    def add(kind: str, title: str, why: str, episode: int | None) -> None:
        if episode is not None and episode not in taken:
            taken.add(episode)
            found.append(Example(kind=kind, title=title, why=why, episode=episode))

    for kind, code in (("success", SUCCESS), ("failure", FAILURE)):
        add(kind, *_of_outcome(facts, kind, code))
    contradicted = (one for one in compared.episodes if one.episode not in taken) if compared else iter(())
    worst = next(contradicted, None)
    if worst:
        why = f"people contradict {worst.wrong} of {worst.frames} compared frames"
        add("contradicted", "The episode that people contradict most", why, worst.episode)
    failed = labeller.failures[0] if labeller and labeller.failures else None
    if failed:
        add("failed", "An episode that the model gave no usable answer about", failed.message, failed.episodes[0])
    else:
        labelled = np.logical_or.reduceat(facts.merged.is_labelled, facts.starts[:-1])
        nothing = np.flatnonzero(~labelled)
        add("unlabelled", "An episode that nobody labelled", "", int(nothing[0]) if len(nothing) else None)
    return found


def _of_outcome(facts: RewardFacts, kind: str, code: int) -> tuple[str, str, int | None]:
    if facts.model is None:
        by_people = facts.merged.source == PEOPLE
        labelled = np.flatnonzero((facts.outcome == code) & np.logical_or.reduceat(by_people, facts.starts[:-1]))
        return f"A {kind} that people labelled", "", int(labelled[0]) if len(labelled) else None
    name, score = end_scores(facts.model, facts.starts)
    rated = np.flatnonzero((facts.outcome == code) & np.isfinite(score))
    if not len(rated):
        return "", "", None
    episode = int(rated[np.argmax(score[rated])])
    return f"The {kind} that is rated highest", f"{name} {score[episode]:.2f} in its last frame", episode
