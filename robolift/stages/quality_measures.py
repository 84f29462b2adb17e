"""The measures of a labelled dataset, each beside what a clock reaches on the same frames."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np

from robolift.labeling.label_quality import (
    area_under_curve,
    calibration_error,
    clock,
    constant_episodes,
    disagreement,
    mean_gap,
    value_order_correlation,
)
from robolift.labeling.returns import BoolArray, Float64Array, IntArray


@dataclass(frozen=True, kw_only=True)
class Labels:
    """What a model and people say about some episodes; NaN where nothing.

    Attributes:
        starts: Offsets of the episodes, (E + 1,).
        succeeded: How each episode ended, 1 or 0, (E,): as people say, else as recorded.
        progress: The model's, (F,).
        success_prob: The model's, (F,).
        asked: Frames that the model was really asked about, (F,) bool.
        by_model: Frames that the model labelled, (F,) bool.
        by_people: Frames that people labelled, (F,) bool.
        tri: People's, (F,).
        staged: Progress by people's task stages, (F,).
    """

    starts: IntArray
    succeeded: Float64Array
    progress: Float64Array
    success_prob: Float64Array
    asked: BoolArray
    by_model: BoolArray
    by_people: BoolArray
    tri: Float64Array
    staged: Float64Array

    def of(self, episodes: IntArray) -> Labels:
        """Return the labels of some episodes alone."""
        rows = np.concatenate([np.arange(self.starts[one], self.starts[one + 1]) for one in episodes.tolist()])
        kept = {
            field.name: getattr(self, field.name)[rows]
            for field in fields(self)
            if field.name not in ("starts", "succeeded")
        }
        starts = np.concatenate([[0], np.cumsum(np.diff(self.starts)[episodes])])
        return Labels(starts=starts, succeeded=self.succeeded[episodes], **kept)

    def of_clock(self) -> Labels:
        """Return what a clock would have said of the frames that the model spoke of; people stay as they are."""
        time = clock(self.starts)
        said = {name: np.where(np.isnan(getattr(self, name)), np.nan, time) for name in ("progress", "success_prob")}
        return Labels(**{**{field.name: getattr(self, field.name) for field in fields(self)}, **said})

    @property
    def tells_progress(self) -> bool:
        """Whether the model speaks of frames before an episode's last: a verdict on the end alone is no progress."""
        before = np.ones(len(self.progress), dtype=bool)
        before[self.starts[1:] - 1] = False
        return bool((~np.isnan(self.progress) & before).any())

    @property
    def scores(self) -> tuple[str, Float64Array]:
        """What the end of an episode is judged by: the probability of success where the model gives one, or progress.

        Returns:
            Its name, and the number in the last frame of each episode, (E,).
        """
        name = "progress" if np.isnan(self.success_prob).all() else "success_prob"
        return name, getattr(self, name)[self.starts[1:] - 1]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One measure: its value, NaN where it can't be told, and what it is or why not."""

    value: float
    about: str


def measure(labels: Labels) -> dict[str, Reading]:
    """Return every measure that the labels allow to be told, by name."""
    return {name: reading for part in (_reach, _order, _outcomes, _people) for name, reading in part(labels)}


def _reach(labels: Labels) -> Iterator[tuple[str, Reading]]:
    both = labels.by_model | labels.by_people
    for name, frames, who in (
        ("coverage", both, "the model or people"),
        ("coverage_vlm", labels.by_model, "the model"),
        ("coverage_human", labels.by_people, "people"),
    ):
        yield name, Reading(value=float(frames.mean()), about=f"share of frames of which {who} said anything")
    known = ~np.isnan(labels.progress) | ~np.isnan(labels.staged)
    about = "share of frames whose progress the model or people's task stages give"
    yield "coverage_progress", Reading(value=float(known.mean()), about=about)


def _order(labels: Labels) -> Iterator[tuple[str, Reading]]:
    answered = np.where(labels.asked, labels.progress, np.nan)
    order = value_order_correlation(answered, labels.starts)
    ordered = order[~np.isnan(order)]
    about = f"mean rank correlation of progress with time, over {len(ordered)} episodes asked about twice or more"
    yield "value_order_correlation", Reading(value=_mean(ordered), about=about)
    constant, told = constant_episodes(answered, labels.starts)
    about = f"share of {int(told.sum())} episodes whose progress never changes: a reward made from it is 0"
    yield "constant_share", Reading(value=_mean(constant[told]), about=about)


def _outcomes(labels: Labels) -> Iterator[tuple[str, Reading]]:
    name, score = labels.scores
    at_end = labels.progress[labels.starts[1:] - 1]
    for measure_name, values, about in (
        ("success_auroc", score, f"probability that {name} at a success's end lies above that at a failure's"),
        ("failure_gap", at_end, "mean final progress of successes less that of failures"),
    ):
        good, bad = (values[(labels.succeeded == ended) & ~np.isnan(values)] for ended in (1, 0))
        compare = area_under_curve if measure_name == "success_auroc" else mean_gap
        known = f"{len(good)} successes and {len(bad)} failures"
        told = f"{about}; {known}" if len(good) and len(bad) else f"needs both outcomes, found {known} with labels"
        yield measure_name, Reading(value=compare(good, bad), about=told)
    prob = labels.success_prob[labels.starts[1:] - 1]
    judged = ~np.isnan(prob) & ~np.isnan(labels.succeeded)
    about = f"mean distance of success_prob from the share of successes, over {int(judged.sum())} episodes in ten bins"
    error = calibration_error(prob[judged], labels.succeeded[judged] == 1)
    yield "calibration_error", Reading(value=error, about=about)


def _people(labels: Labels) -> Iterator[tuple[str, Reading]]:
    wrong, both = disagreement(labels.progress, labels.tri, labels.starts)
    about = f"share of {int(both.sum())} frames that people marked -1, 0 or 1 and whose segment progress contradicts"
    yield "disagreement", Reading(value=_mean(wrong[both]), about=about)
    apart = np.abs(labels.progress - labels.staged)
    apart = apart[~np.isnan(apart)]
    about = f"mean distance of the model's progress from that of people's task stages, over {len(apart)} frames"
    yield "progress_error", Reading(value=_mean(apart), about=about)


def _mean(values: Float64Array | BoolArray) -> float:
    return float(values.mean(dtype=np.float64)) if len(values) else float("nan")
