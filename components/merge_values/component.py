"""Put the shards of predicted values together."""

from typing import List

from kfp import dsl

from components._artifacts import EpisodeDataset, ValueSet
from components._images import image


@dsl.component(base_image=image("merge_values"), install_kfp_package=False)
def merge_values(
    dataset: dsl.Input[EpisodeDataset],
    shards: dsl.Input[List[dsl.Artifact]],
    stages: dict,
    output_root: str,
    values: dsl.Output[ValueSet],
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.Markdown],
) -> str:
    """Put the shards of predicted values together."""
    from robolift.stages.component import run_component

    return run_component(
        "merge_values",
        artifact=values,
        shown={"metrics": metrics, "page": page},
        output_root=output_root,
        stages=stages,
        inputs={"dataset": dataset, "shards": shards},
    )
