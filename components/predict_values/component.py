"""Predict the value of every frame of one shard of the episodes."""

from kfp import dsl

from components._artifacts import EpisodeDataset, FrameCache, ValueCheckpoint, ValueShard
from components._images import image


@dsl.component(base_image=image("predict_values"), install_kfp_package=False)
def predict_values(
    dataset: dsl.Input[EpisodeDataset],
    checkpoint: dsl.Input[ValueCheckpoint],
    frames: dsl.Input[FrameCache],
    shard: int,
    num_shards: int,
    stages: dict,
    output_root: str,
    values: dsl.Output[ValueShard],
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.Markdown],
) -> str:
    """Predict the value of every frame of one shard of the episodes."""
    from robolift.stages.component import run_component

    return run_component(
        "predict_values",
        artifact=values,
        shown={"metrics": metrics, "page": page},
        output_root=output_root,
        stages=stages,
        inputs={"dataset": dataset, "checkpoint": checkpoint, "frames": frames},
        shard=shard,
        num_shards=num_shards,
    )
