"""Label frames from what an estimator predicted: the same step without value targets.

An artifact that a pipeline doesn't make can't be left out of a component's signature, so this is one of its own.
"""

from kfp import dsl

from components._artifacts import EpisodeDataset, LabelSet, ValueSet
from components._images import image


@dsl.component(base_image=image("label_advantage"), install_kfp_package=False)
def label_advantage(
    dataset: dsl.Input[EpisodeDataset],
    values: dsl.Input[ValueSet],
    lookahead: int,
    positive_fraction: float,
    stages: dict,
    output_root: str,
    labels: dsl.Output[LabelSet],
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.Markdown],
) -> str:
    """Label each frame by its advantage, group by group, from predicted values."""
    from robolift.stages.component import run_component

    return run_component(
        "label_advantage",
        artifact=labels,
        shown={"metrics": metrics, "page": page},
        output_root=output_root,
        stages=stages,
        inputs={"dataset": dataset, "values": values},
        lookahead=lookahead,
        positive_fraction=positive_fraction,
    )
