"""Put the shards of a model's labels together."""

from typing import List

from kfp import dsl

from components._artifacts import EpisodeDataset, LabelPlan, RewardSet
from components._images import image


@dsl.component(base_image=image("collect_rewards"), install_kfp_package=False)
def collect_rewards(
    dataset: dsl.Input[EpisodeDataset],
    plan: dsl.Input[LabelPlan],
    shards: dsl.Input[List[dsl.Artifact]],
    stages: dict,
    output_root: str,
    rewards: dsl.Output[RewardSet],
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.Markdown],
) -> str:
    """Put the shards of a model's labels together."""
    from robolift.stages.component import run_component

    return run_component(
        "collect_rewards",
        artifact=rewards,
        shown={"metrics": metrics, "page": page},
        output_root=output_root,
        stages=stages,
        inputs={"dataset": dataset, "plan": plan, "shards": shards},
    )
