"""Write the run card of a clip_reward run: the same step with clips and their scores, without a robot's dataset.

An artifact that a pipeline doesn't make can't be left out of a component's signature, so this is one of its own.
"""

from kfp import dsl

from components._artifacts import (
    ClipScores,
    ClipSet,
    FeatureSet,
    PairSet,
    PreferenceSet,
    RewardModel,
    RewardValidation,
    RunCard,
)
from components._images import image


@dsl.component(base_image=image("write_report"), install_kfp_package=False)
def write_report(
    clips: dsl.Input[ClipSet],
    features: dsl.Input[FeatureSet],
    pairs: dsl.Input[PairSet],
    preferences: dsl.Input[PreferenceSet],
    model: dsl.Input[RewardModel],
    scores: dsl.Input[ClipScores],
    validation: dsl.Input[RewardValidation],
    stages: dict,
    output_root: str,
    report: dsl.Output[RunCard],
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.HTML],
    outcomes: dsl.Output[dsl.ClassificationMetrics],
) -> str:
    """Write the run card: one self-contained HTML page."""
    from robolift.stages.component import run_component

    made = {"clips": clips, "features": features, "pairs": pairs, "preferences": preferences, "model": model}
    return run_component(
        "write_report",
        artifact=report,
        shown={"metrics": metrics, "page": page, "outcomes": outcomes},
        output_root=output_root,
        stages=stages,
        inputs={**made, "scores": scores, "validation": validation},
    )
