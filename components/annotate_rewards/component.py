"""Ask a model about the episodes of one shard, and keep every answer."""

from kfp import dsl

from components._artifacts import EpisodeDataset, LabelPlan, RewardShard
from components._images import image


@dsl.component(base_image=image("annotate_rewards"), install_kfp_package=False)
def annotate_rewards(
    dataset: dsl.Input[EpisodeDataset],
    plan: dsl.Input[LabelPlan],
    endpoint: str,
    shard: int,
    num_shards: int,
    stages: dict,
    output_root: str,
    rewards: dsl.Output[RewardShard],
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.Markdown],
) -> str:
    """Ask a model about the episodes of one shard, and keep every answer."""
    from robolift.stages.component import run_component

    return run_component(
        "annotate_rewards",
        artifact=rewards,
        shown={"metrics": metrics, "page": page},
        output_root=output_root,
        stages=stages,
        inputs={"dataset": dataset, "plan": plan},
        endpoint=endpoint,
        shard=shard,
        num_shards=num_shards,
    )
