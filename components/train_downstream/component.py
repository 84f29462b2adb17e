"""Train a small policy on subsets of the clips, one shard of the subsets."""

from kfp import dsl

from components._artifacts import ClipScores, ClipSet, DownstreamShard, FeatureSet
from components._images import image


@dsl.component(base_image=image("train_downstream"), install_kfp_package=False)
def train_downstream(
    features: dsl.Input[FeatureSet],
    scores: dsl.Input[ClipScores],
    clips: dsl.Input[ClipSet],
    shard: int,
    num_shards: int,
    seed: int,
    stages: dict,
    output_root: str,
    downstream: dsl.Output[DownstreamShard],
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.Markdown],
) -> str:
    """Train a small policy on subsets of the clips, one shard of the subsets."""
    from robolift.stages.component import run_component

    return run_component(
        "train_downstream",
        artifact=downstream,
        shown={"metrics": metrics, "page": page},
        output_root=output_root,
        stages=stages,
        inputs={"features": features, "scores": scores, "clips": clips},
        shard=shard,
        num_shards=num_shards,
        seed=seed,
    )
