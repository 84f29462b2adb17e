"""Run a policy closed loop in the simulator, or measure its error on held-out episodes."""

from kfp import dsl

from components._artifacts import EpisodeDataset, Evaluation, PolicyCheckpoint
from components._images import image


@dsl.component(base_image=image("evaluate_policy"), install_kfp_package=False)
def evaluate_policy(
    dataset: dsl.Input[EpisodeDataset],
    policy: dsl.Input[PolicyCheckpoint],
    seed: int,
    stages: dict,
    output_root: str,
    evaluation: dsl.Output[Evaluation],
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.Markdown],
) -> str:
    """Run a policy closed loop in the simulator, or measure its error on held-out episodes."""
    from robolift.stages.component import run_component

    return run_component(
        "evaluate_policy",
        artifact=evaluation,
        shown={"metrics": metrics, "page": page},
        output_root=output_root,
        stages=stages,
        inputs={"dataset": dataset, "policy": policy},
        seed=seed,
    )
