"""Take the progress that a reward model of LeRobot wrote beside a dataset."""

from kfp import dsl

from components._artifacts import EpisodeDataset, RewardSet
from components._images import image


@dsl.component(base_image=image("import_rewards"), install_kfp_package=False)
def import_rewards(
    dataset: dsl.Input[EpisodeDataset],
    rewards_uri: str,
    stages: dict,
    output_root: str,
    rewards: dsl.Output[RewardSet],
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.Markdown],
) -> str:
    """Take the progress that a reward model of LeRobot wrote beside a dataset."""
    from robolift.stages.component import run_component

    return run_component(
        "import_rewards",
        artifact=rewards,
        shown={"metrics": metrics, "page": page},
        output_root=output_root,
        stages=stages,
        inputs={"dataset": dataset},
        rewards_uri=rewards_uri,
    )
