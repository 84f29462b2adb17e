"""Learn a reward from preferences; without some features where an ablation drops them."""

from kfp import dsl

from components._artifacts import ClipSet, FeatureSet, PreferenceSet, RewardModel
from components._images import image


@dsl.component(base_image=image("train_reward"), install_kfp_package=False)
def train_reward(
    features: dsl.Input[FeatureSet],
    preferences: dsl.Input[PreferenceSet],
    clips: dsl.Input[ClipSet],
    drop: str,
    seed: int,
    stages: dict,
    output_root: str,
    model: dsl.Output[RewardModel],
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.Markdown],
) -> str:
    """Learn a reward from preferences; without some features where an ablation drops them."""
    from robolift.stages.component import run_component

    return run_component(
        "train_reward",
        artifact=model,
        shown={"metrics": metrics, "page": page},
        output_root=output_root,
        stages=stages,
        inputs={"features": features, "preferences": preferences, "clips": clips},
        drop=drop.split("+") if drop else [],
        seed=seed,
    )
