"""Write the run card of a progress estimator's run: the same step with the labelled data, without value targets.

An artifact that a pipeline doesn't make can't be left out of a component's signature, so this is one of its own.
"""

from typing import List

from kfp import dsl

from components._artifacts import EpisodeDataset, Evaluation, LabelSet, RunCard, ValueCheckpoint, ValueSet
from components._images import image


@dsl.component(base_image=image("write_report"), install_kfp_package=False)
def write_report(
    labelled: dsl.Input[EpisodeDataset],
    labelled_values: dsl.Input[ValueSet],
    labelled_labels: dsl.Input[LabelSet],
    checkpoint: dsl.Input[ValueCheckpoint],
    dataset: dsl.Input[EpisodeDataset],
    values: dsl.Input[ValueSet],
    labels: dsl.Input[LabelSet],
    evaluation: dsl.Input[Evaluation],
    baselines: dsl.Input[List[dsl.Artifact]],
    stages: dict,
    output_root: str,
    report: dsl.Output[RunCard],
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.HTML],
    outcomes: dsl.Output[dsl.ClassificationMetrics],
) -> str:
    """Write the run card: one self-contained HTML page."""
    from robolift.stages.component import run_component

    annotated = {"labelled": labelled, "labelled_values": labelled_values, "labelled_labels": labelled_labels}
    made = {"dataset": dataset, "checkpoint": checkpoint, "values": values, "labels": labels}
    return run_component(
        "write_report",
        artifact=report,
        shown={"metrics": metrics, "page": page, "outcomes": outcomes},
        output_root=output_root,
        stages=stages,
        inputs={**annotated, **made, "evaluations": [evaluation, *baselines]},
    )
