"""Work out what a model will be asked about each episode, and what that costs."""

from kfp import dsl

from components._artifacts import EpisodeDataset, LabelPlan
from components._images import image


@dsl.component(base_image=image("plan_labels"), install_kfp_package=False)
def plan_labels(
    dataset: dsl.Input[EpisodeDataset],
    model: str,
    endpoint: str,
    protocol: str,
    seed: int,
    stages: dict,
    output_root: str,
    plan: dsl.Output[LabelPlan],
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.Markdown],
) -> str:
    """Work out what a model will be asked about each episode, and what that costs."""
    from robolift.stages.component import run_component

    return run_component(
        "plan_labels",
        artifact=plan,
        shown={"metrics": metrics, "page": page},
        output_root=output_root,
        stages=stages,
        inputs={"dataset": dataset},
        model=model,
        endpoint=endpoint,
        protocol=protocol,
        seed=seed,
    )
