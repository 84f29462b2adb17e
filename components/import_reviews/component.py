"""Take what people marked on the labelling page."""

from kfp import dsl

from components._artifacts import EpisodeDataset, RewardSet
from components._images import image


@dsl.component(base_image=image("import_reviews"), install_kfp_package=False)
def import_reviews(
    dataset: dsl.Input[EpisodeDataset],
    reviews_uri: str,
    stages: dict,
    output_root: str,
    rewards: dsl.Output[RewardSet],
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.Markdown],
) -> str:
    """Take what people marked on the labelling page."""
    from robolift.stages.component import run_component

    return run_component(
        "import_reviews",
        artifact=rewards,
        shown={"metrics": metrics, "page": page},
        output_root=output_root,
        stages=stages,
        inputs={"dataset": dataset},
        reviews_uri=reviews_uri,
    )
