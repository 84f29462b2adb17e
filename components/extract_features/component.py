"""Measure the clips of one shard: sharpness, exposure, motion, hands, and what an encoder sees."""

from kfp import dsl

from components._artifacts import ClipSet, FeatureShard
from components._images import image


@dsl.component(base_image=image("extract_features"), install_kfp_package=False)
def extract_features(
    clips: dsl.Input[ClipSet],
    encoder: str,
    hand_model: str,
    shard: int,
    num_shards: int,
    stages: dict,
    output_root: str,
    features: dsl.Output[FeatureShard],
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.Markdown],
) -> str:
    """Measure the clips of one shard: sharpness, exposure, motion, hands, and what an encoder sees."""
    from robolift.stages.component import run_component

    return run_component(
        "extract_features",
        artifact=features,
        shown={"metrics": metrics, "page": page},
        output_root=output_root,
        stages=stages,
        inputs={"clips": clips},
        encoder=encoder,
        hand_model=hand_model,
        shard=shard,
        num_shards=num_shards,
    )
