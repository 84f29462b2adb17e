"""Everything a run card says, as numbers: read and measured here, drawn elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robolift import storage
from robolift.data.dataset import Dataset
from robolift.errors import DataError
from robolift.manifest import Manifest
from robolift.reports import diagnosis, fairness, headline, labels, offline, success, training
from robolift.reports.estimator import Estimation, Estimator, annotated_progress, estimate, read_estimator
from robolift.reports.frames import FrameFacts, load_frames
from robolift.reports.intervals import Interval

SUMMARY_FILE = "summary.json"


@dataclass(frozen=True, kw_only=True)
class Sources:
    """The finished outputs a report speaks of."""

    dataset: Manifest
    targets: Manifest | None
    values: Manifest
    labels: Manifest
    evaluations: Sequence[Manifest]
    checkpoint: Manifest | None
    previous: Manifest | None
    labelled: Manifest | None = None
    labelled_values: Manifest | None = None
    labelled_labels: Manifest | None = None


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """The annotated dataset that a progress estimator learned from.

    Attributes:
        frames: Its frames with the estimator's values.
        held_out: Its episodes that the estimator was not trained on, None when that is not known.
        label_facts: Its labels, made from the annotation itself.
    """

    dataset: Dataset
    frames: FrameFacts
    held_out: NDArray[np.int64] | None
    label_facts: labels.LabelFacts


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
    quality: training.ValueQuality | None
    estimator: Estimator | None
    estimations: tuple[Estimation, ...]
    labelled: Labelled | None
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
        return self.estimator is None and bool((self.frames.value < 0).any())

    @property
    def target_name(self) -> str:
        """What the value should be, in words."""
        return "annotated progress" if self.estimator else "value target"

    @property
    def has_slices(self) -> bool:
        """Whether labels are slices of the advantage, and not positive or negative."""
        return bool((self.frames.slice_index >= 0).any())

    @property
    def iteration(self) -> int:
        """The latest iteration in the data."""
        return int(max(self.frames.episodes.column("iteration").to_pylist()))


def find(sources: Sources, *, num_stages: int = 0) -> Findings:
    """Read and measure everything; nothing is drawn yet.

    Args:
        sources: What the report rests on.
        num_stages: Task stages by which to measure a progress estimator; fewer than 2: none.

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
    training.check_predicted_by(sources.values, sources.checkpoint)
    held_out = training.held_out_episodes(sources.checkpoint, dataset)
    estimated = read_estimator(sources.checkpoint)
    labelled = _labelled(sources)
    if estimated:
        frames = replace(frames, value_target=annotated_progress(estimated, dataset))
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
        estimator=estimated,
        estimations=_estimations(estimated, labelled, dataset, frames, held_out, num_stages=num_stages),
        labelled=labelled,
        seen=headline.observations(sources.evaluations),
        value_seen=headline.value_observations(sources.checkpoint),
        differing=fairness.differing_settings(policies, sources.evaluations, made),
        history=read_history(sources.previous),
    )


def _labelled(sources: Sources) -> Labelled | None:
    if sources.labelled is None or sources.labelled_values is None or sources.labelled_labels is None:
        return None
    dataset = Dataset.open(sources.labelled)
    training.check_predicted_by(sources.labelled_values, sources.checkpoint)
    frames = load_frames(dataset, targets=None, values=sources.labelled_values, labels=sources.labelled_labels)
    return Labelled(
        dataset=dataset,
        frames=frames,
        held_out=training.held_out_episodes(sources.checkpoint, dataset),
        label_facts=labels.label_facts(frames, sources.labelled_labels),
    )


def _estimations(
    estimated: Estimator | None,
    labelled: Labelled | None,
    dataset: Dataset,
    frames: FrameFacts,
    held_out: NDArray[np.int64] | None,
    *,
    num_stages: int,
) -> tuple[Estimation, ...]:
    if estimated is None:
        return ()
    given = [("new", dataset, frames, held_out)]
    if labelled:
        given.insert(0, ("labelled", labelled.dataset, labelled.frames, labelled.held_out))
    found = (
        estimate(estimated, data, facts, numbers, key=key, num_stages=num_stages) for key, data, facts, numbers in given
    )
    return tuple(one for one in found if one is not None)


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
            **_quality(found.quality),
            "held_out_while_training": found.value_curves.held_out if found.value_curves else {},
        },
        "estimator": {one.key: one.facts() for one in found.estimations},
        "labelled": _labelled_facts(found.labelled),
        "doubts": why(found),
        "observations": found.seen,
    }


def _quality(quality: training.ValueQuality | None) -> dict[str, Any]:
    names = ("held_out", "spearman", "outcome_auc", "mean_error")
    return {name: getattr(quality, name, None) for name in names}


def _labelled_facts(labelled: Labelled | None) -> dict[str, Any] | None:
    if labelled is None:
        return None
    truth = labelled.label_facts.truth
    return {
        "episodes": labelled.frames.num_episodes,
        "frames": labelled.frames.num_frames,
        "positive_share": labelled.label_facts.positive_share,
        "auc_against_truth": truth.auc if truth else None,
        "cuts": {cut.group: asdict(cut) for cut in labelled.label_facts.cuts},
    }


def why(found: Findings) -> list[str]:
    """Return what may explain that the method does not clearly beat plain cloning; empty where it does."""
    return diagnosis.doubts(
        baseline=found.baseline,
        comparisons=found.comparisons,
        estimation=unseen_estimation(found),
        label_facts=found.label_facts,
    )


def unseen_estimation(found: Findings) -> Estimation | None:
    """Return the measures of the estimator that count: on held-out labelled episodes, else on new ones."""
    unseen = [one for one in found.estimations if one.unseen]
    return next((one for one in unseen if one.skill), unseen[0] if unseen else None)


def tell(found: Findings) -> headline.Headline:
    """Return the headline of a run."""
    setting = headline.describe_setting(found.dataset.simulator, found.seen)
    estimation = unseen_estimation(found)
    learned = headline.describe_estimator(estimation) if estimation else ""
    return headline.write_headline(found.rows, found.baseline, found.frames, setting=setting, learned=learned)
