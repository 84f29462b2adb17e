"""Join reward labels into a standalone LeRobot dataset: the same step without value targets, values and advantages.

An artifact that a pipeline doesn't make can't be left out of a component's signature, so this is one of its own.
"""

from kfp import dsl

from components._artifacts import EpisodeDataset, ExportedDataset, LabelQuality, RewardSet
from components._images import image


@dsl.component(base_image=image("export_dataset"), install_kfp_package=False)
def export_dataset(
    dataset: dsl.Input[EpisodeDataset],
    rewards: dsl.Input[RewardSet],
    quality: dsl.Input[LabelQuality],
    stages: dict,
    output_root: str,
    exported: dsl.Output[ExportedDataset],
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.Markdown],
) -> str:
    """Join reward labels into a standalone LeRobot dataset."""
    from robolift.stages.component import run_component

    return run_component(
        "export_dataset",
        artifact=exported,
        shown={"metrics": metrics, "page": page},
        output_root=output_root,
        stages=stages,
        inputs={"dataset": dataset, "rewards": rewards, "quality": quality},
    )
