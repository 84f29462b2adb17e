"""Which episodes the page on reward labels shows, chosen by rule and not by eye."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from robolift.reports.rewards import FAILURE, SUCCESS, RewardFacts
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

    They are the success and the failure with the highest score in their last frame (the best that the labels do, and
    the worst), the episode that people contradict most, and one without usable labels. Of equals the first.
    """
    name, score = end_scores(facts.judged, facts.starts)
    found: list[Example] = []
    taken: set[int] = set()

    def add(kind: str, title: str, why: str, episode: int | None) -> None:
        if episode is not None and episode not in taken:
            taken.add(episode)
            found.append(Example(kind=kind, title=title, why=why, episode=episode))

    for kind, code, title in (
        ("success", SUCCESS, "The success that is rated highest"),
        ("failure", FAILURE, "The failure that is rated highest"),
    ):
        of_kind = np.flatnonzero((facts.outcome == code) & np.isfinite(score))
        if len(of_kind):
            episode = int(of_kind[np.argmax(score[of_kind])])
            add(kind, title, f"{name} {score[episode]:.2f} in its last frame", episode)
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
