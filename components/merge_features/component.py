"""Put the shards of features together."""

from typing import List

from kfp import dsl

from components._artifacts import ClipSet, FeatureSet
from components._images import image


@dsl.component(base_image=image("merge_features"), install_kfp_package=False)
def merge_features(
    clips: dsl.Input[ClipSet],
    shards: dsl.Input[List[dsl.Artifact]],
    stages: dict,
    output_root: str,
    features: dsl.Output[FeatureSet],
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.Markdown],
) -> str:
    """Put the shards of features together."""
    from robolift.stages.component import run_component

    return run_component(
        "merge_features",
        artifact=features,
        shown={"metrics": metrics, "page": page},
        output_root=output_root,
        stages=stages,
        inputs={"clips": clips, "shards": shards},
    )
