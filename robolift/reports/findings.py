"""Everything a run card says, as numbers: read and measured here, drawn elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robolift import storage
from robolift.data.dataset import Dataset
from robolift.errors import DataError
from robolift.manifest import Manifest
from robolift.reports import fairness, headline, labels, offline, success, training
from robolift.reports.frames import FrameFacts, load_frames
from robolift.reports.intervals import Interval

SUMMARY_FILE = "summary.json"


@dataclass(frozen=True, kw_only=True)
class Sources:
    """The finished outputs a report speaks of."""

    dataset: Manifest
    targets: Manifest
    values: Manifest
    labels: Manifest
    evaluations: Sequence[Manifest]
    checkpoint: Manifest | None
    previous: Manifest | None


@dataclass(frozen=True, kw_only=True)
class Findings:
    """All that was measured, before anything is drawn."""

    dataset: Dataset
    frames: FrameFacts
    rows: tuple[success.SuccessRow, ...]
    rollouts: tuple[success.Rollouts, ...]
    offline: tuple[offline.OfflineRow, ...]
    comparisons: tuple[success.Comparison, ...]
    label_facts: labels.LabelFacts
    held_out: NDArray[np.int64] | None
    value_curves: training.Curves | None
    quality: training.ValueQuality
    seen: str
    value_seen: str
    differing: tuple[str, ...]
    history: tuple[dict[str, Any], ...]

    @property
    def baseline(self) -> success.Comparison | None:
        """The method against plain cloning."""
        return success.against_baseline(self.comparisons)

    @property
    def counts_down(self) -> bool:
        """Whether values are returns, from -1 to 0, and not progress, from 0 to 1."""
        return bool((self.frames.value_target < 0).any())

    @property
    def has_slices(self) -> bool:
        """Whether labels are slices of the advantage, and not positive or negative."""
        return bool((self.frames.slice_index >= 0).any())

    @property
    def iteration(self) -> int:
        """The latest iteration in the data."""
        return int(max(self.frames.episodes.column("iteration").to_pylist()))


def find(sources: Sources) -> Findings:
    """Read and measure everything; nothing is drawn yet.

    Raises:
        DataError: If tables do not fit the dataset, or an output lacks what its kind must have.
    """
    policies = success.evaluated_policies(sources.evaluations)
    made = {"dataset": sources.dataset, "labels": sources.labels}
    rollouts = success.read_rollouts(sources.evaluations)
    dataset = Dataset.open(sources.dataset)
    frames = load_frames(
        dataset,
        targets=sources.targets,
        values=sources.values,
        labels=sources.labels,
    )
    rows = success.success_rows(rollouts)
    held_out = training.held_out_episodes(sources.checkpoint, sources.dataset, frames.num_episodes)
    return Findings(
        dataset=dataset,
        frames=frames,
        rows=tuple(rows),
        rollouts=tuple(rollouts),
        offline=offline.offline_rows(sources.evaluations),
        comparisons=tuple(success.comparisons(rows)),
        label_facts=labels.label_facts(frames, sources.labels),
        held_out=held_out,
        value_curves=training.value_curves(sources.checkpoint),
        quality=training.value_quality(frames, held_out),
        seen=headline.observations(sources.evaluations),
        value_seen=headline.value_observations(sources.checkpoint),
        differing=fairness.differing_settings(policies, sources.evaluations, made),
        history=read_history(sources.previous),
    )


def read_history(previous: Manifest | None) -> tuple[dict[str, Any], ...]:
    """Return the iterations that the report before this one tells of, oldest first.

    Raises:
        DataError: If its summary has none.
    """
    if previous is None:
        return ()
    uri = previous.file(SUMMARY_FILE)
    summary = storage.read_json(uri)
    if not isinstance(summary.get("iterations"), list):
        raise DataError("no list of iterations", where=uri, mend="write the report before this one again")
    return tuple(summary["iterations"])


def iteration_rows(found: Findings) -> list[dict[str, Any]]:
    """Return the success rows of all iterations, those of earlier reports first."""
    told = [*found.history, {"iteration": found.iteration, "success": [row.facts() for row in found.rows]}]
    rows = []
    for step in told:
        for number, row in enumerate(step["success"]):
            rate = Interval(estimate=row["success_rate"], low=row["ci_low"], high=row["ci_high"])
            rows.append({**row, "rate": rate, "iteration": step["iteration"], "is_first": number == 0})
    return rows


def summarize(found: Findings, told: headline.Headline) -> dict[str, Any]:
    """Return the numbers of the page for machines: summary.json."""
    success_table = [row.facts() for row in found.rows]
    this_iteration = {"iteration": found.iteration, "success": success_table}
    baseline, truth = found.baseline, found.label_facts.truth
    return {
        "headline": told.title,
        "detail": told.detail,
        "success": success_table,
        "offline": [row.facts() for row in found.offline],
        "differences": [one.facts() for one in found.comparisons],
        "gain_over_plain": baseline.facts() if baseline else None,
        "iterations": [*found.history, this_iteration],
        "dataset": {"episodes": found.frames.num_episodes, "frames": found.frames.num_frames},
        "labels": {
            "positive_share": found.label_facts.positive_share,
            "auc_against_truth": truth.auc if truth else None,
            "good_among_positive": truth.positive_share if truth else None,
        },
        "value": {
            "held_out": found.quality.held_out,
            "spearman": found.quality.spearman,
            "outcome_auc": found.quality.outcome_auc,
            "mean_error": found.quality.mean_error,
            "held_out_while_training": found.value_curves.held_out if found.value_curves else {},
        },
        "observations": found.seen,
    }


def tell(found: Findings) -> headline.Headline:
    """Return the headline of a run."""
    setting = headline.describe_setting(found.dataset.simulator, found.seen)
    return headline.write_headline(found.rows, found.baseline, found.frames, setting=setting)
