"""Give every clip a score by a reward model."""

from kfp import dsl

from components._artifacts import ClipScores, FeatureSet, RewardModel
from components._images import image


@dsl.component(base_image=image("score_clips"), install_kfp_package=False)
def score_clips(
    features: dsl.Input[FeatureSet],
    model: dsl.Input[RewardModel],
    method: str,
    seed: int,
    stages: dict,
    output_root: str,
    scores: dsl.Output[ClipScores],
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.Markdown],
) -> str:
    """Give every clip a score by a reward model."""
    from robolift.stages.component import run_component

    return run_component(
        "score_clips",
        artifact=scores,
        shown={"metrics": metrics, "page": page},
        output_root=output_root,
        stages=stages,
        inputs={"features": features, "model": model},
        method=method,
        seed=seed,
    )
