"""Label each frame by its advantage, group by group."""

from kfp import dsl

from components._artifacts import EpisodeDataset, LabelSet, ValueSet, ValueTargets
from components._images import image


@dsl.component(base_image=image("label_advantage"), install_kfp_package=False)
def label_advantage(
    dataset: dsl.Input[EpisodeDataset],
    targets: dsl.Input[ValueTargets],
    values: dsl.Input[ValueSet],
    lookahead: int,
    positive_fraction: float,
    stages: dict,
    output_root: str,
    labels: dsl.Output[LabelSet],
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.Markdown],
) -> str:
    """Label each frame by its advantage, group by group."""
    from robolift.stages.component import run_component

    return run_component(
        "label_advantage",
        artifact=labels,
        shown={"metrics": metrics, "page": page},
        output_root=output_root,
        stages=stages,
        inputs={"dataset": dataset, "targets": targets, "values": values},
        lookahead=lookahead,
        positive_fraction=positive_fraction,
    )
