"""Lay people's labels over the model's and derive the reward."""

from kfp import dsl

from components._artifacts import EpisodeDataset, LabelQuality, RewardSet
from components._images import image


@dsl.component(base_image=image("merge_rewards"), install_kfp_package=False)
def merge_rewards(
    dataset: dsl.Input[EpisodeDataset],
    automatic: dsl.Input[RewardSet],
    reviews: dsl.Input[RewardSet],
    quality: dsl.Input[LabelQuality],
    reward: str,
    quality_gate: bool,  # noqa: FBT001  (KFP knows no keyword-only parameters)
    stages: dict,
    output_root: str,
    rewards: dsl.Output[RewardSet],
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.Markdown],
) -> str:
    """Lay people's labels over the model's and derive the reward."""
    from robolift.stages.component import run_component

    return run_component(
        "merge_rewards",
        artifact=rewards,
        shown={"metrics": metrics, "page": page},
        output_root=output_root,
        stages=stages,
        inputs={"dataset": dataset, "automatic": automatic, "reviews": reviews, "quality": quality},
        reward=reward,
        quality_gate=quality_gate,
    )
