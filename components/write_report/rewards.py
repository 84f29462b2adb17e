"""Write the run card of a labelling run: the same step with labels and their quality, without values and policies.

An artifact that a pipeline doesn't make can't be left out of a component's signature, so this is one of its own.
"""

from kfp import dsl

from components._artifacts import EpisodeDataset, LabelPlan, LabelQuality, RewardSet, RunCard
from components._images import image


@dsl.component(base_image=image("write_report"), install_kfp_package=False)
def write_report(
    dataset: dsl.Input[EpisodeDataset],
    plan: dsl.Input[LabelPlan],
    automatic: dsl.Input[RewardSet],
    reviews: dsl.Input[RewardSet],
    quality: dsl.Input[LabelQuality],
    rewards: dsl.Input[RewardSet],
    stages: dict,
    output_root: str,
    report: dsl.Output[RunCard],
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.HTML],
    outcomes: dsl.Output[dsl.ClassificationMetrics],
) -> str:
    """Write the run card: one self-contained HTML page."""
    from robolift.stages.component import run_component

    said = {"plan": plan, "automatic": automatic, "reviews": reviews, "quality": quality, "rewards": rewards}
    return run_component(
        "write_report",
        artifact=report,
        shown={"metrics": metrics, "page": page, "outcomes": outcomes},
        output_root=output_root,
        stages=stages,
        inputs={"dataset": dataset, **said},
    )
