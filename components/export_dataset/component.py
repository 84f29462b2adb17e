"""Join the labels into a standalone LeRobot dataset."""

from kfp import dsl

from components._artifacts import EpisodeDataset, ExportedDataset, LabelSet, ValueSet, ValueTargets
from components._images import image


@dsl.component(base_image=image("export_dataset"), install_kfp_package=False)
def export_dataset(
    dataset: dsl.Input[EpisodeDataset],
    targets: dsl.Input[ValueTargets],
    values: dsl.Input[ValueSet],
    labels: dsl.Input[LabelSet],
    stages: dict,
    output_root: str,
    exported: dsl.Output[ExportedDataset],
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.Markdown],
) -> str:
    """Join the labels into a standalone LeRobot dataset."""
    from robolift.stages.component import run_component

    return run_component(
        "export_dataset",
        artifact=exported,
        shown={"metrics": metrics, "page": page},
        output_root=output_root,
        stages=stages,
        inputs={"dataset": dataset, "targets": targets, "values": values, "labels": labels},
    )
