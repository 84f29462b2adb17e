"""Measure whether scores foretell how useful clips are to a policy, beside controls."""

from typing import List

from kfp import dsl

from components._artifacts import ClipScores, FeatureSet, RewardModel, RewardValidation
from components._images import image


@dsl.component(base_image=image("validate_reward"), install_kfp_package=False)
def validate_reward(
    scores: dsl.Input[ClipScores],
    downstream: dsl.Input[List[dsl.Artifact]],
    features: dsl.Input[FeatureSet],
    model: dsl.Input[RewardModel],
    controls: dsl.Input[List[dsl.Artifact]],
    ablations: dsl.Input[List[dsl.Artifact]],
    seed: int,
    stages: dict,
    output_root: str,
    validation: dsl.Output[RewardValidation],
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.Markdown],
) -> str:
    """Measure whether scores foretell how useful clips are to a policy, beside controls."""
    from robolift.stages.component import run_component

    return run_component(
        "validate_reward",
        artifact=validation,
        shown={"metrics": metrics, "page": page},
        output_root=output_root,
        stages=stages,
        inputs={
            "scores": scores,
            "downstream": downstream,
            "features": features,
            "model": model,
            "controls": controls,
            "ablations": ablations,
        },
        seed=seed,
    )
