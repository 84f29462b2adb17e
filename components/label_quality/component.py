"""Measure what the labels are worth before anything is trained on them."""

from kfp import dsl

from components._artifacts import EpisodeDataset, LabelQuality, RewardSet
from components._images import image


@dsl.component(base_image=image("label_quality"), install_kfp_package=False)
def label_quality(
    dataset: dsl.Input[EpisodeDataset],
    automatic: dsl.Input[RewardSet],
    reviews: dsl.Input[RewardSet],
    stages: dict,
    output_root: str,
    quality: dsl.Output[LabelQuality],
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.Markdown],
) -> str:
    """Measure what the labels are worth before anything is trained on them."""
    from robolift.stages.component import run_component

    return run_component(
        "label_quality",
        artifact=quality,
        shown={"metrics": metrics, "page": page},
        output_root=output_root,
        stages=stages,
        inputs={"dataset": dataset, "automatic": automatic, "reviews": reviews},
    )
