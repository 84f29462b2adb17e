"""Write the run card: one self-contained HTML page."""

from typing import List

from kfp import dsl

from components._artifacts import EpisodeDataset, Evaluation, LabelSet, RunCard, ValueCheckpoint, ValueSet, ValueTargets
from components._images import image


@dsl.component(base_image=image("write_report"), install_kfp_package=False)
def write_report(
    dataset: dsl.Input[EpisodeDataset],
    targets: dsl.Input[ValueTargets],
    checkpoint: dsl.Input[ValueCheckpoint],
    values: dsl.Input[ValueSet],
    labels: dsl.Input[LabelSet],
    evaluation: dsl.Input[Evaluation],
    baselines: dsl.Input[List[dsl.Artifact]],
    previous_uri: str,
    stages: dict,
    output_root: str,
    report: dsl.Output[RunCard],
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.HTML],
    outcomes: dsl.Output[dsl.ClassificationMetrics],
) -> str:
    """Write the run card: one self-contained HTML page."""
    from robolift.stages.component import run_component

    return run_component(
        "write_report",
        artifact=report,
        shown={"metrics": metrics, "page": page, "outcomes": outcomes},
        output_root=output_root,
        stages=stages,
        inputs={
            "dataset": dataset,
            "targets": targets,
            "checkpoint": checkpoint,
            "values": values,
            "labels": labels,
            "evaluations": [evaluation, *baselines],
            "previous": previous_uri,
        },
    )
