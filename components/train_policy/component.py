"""Train a policy: conditioned on advantage, or one of the baselines it is compared with."""

from kfp import dsl

from components._artifacts import EpisodeDataset, FrameCache, LabelSet, PolicyCheckpoint, ValueCheckpoint, ValueSet
from components._launch import step_image


@dsl.component(base_image=step_image("train_policy"), install_kfp_package=False)
def train_policy(
    dataset: dsl.Input[EpisodeDataset],
    labels: dsl.Input[LabelSet],
    values: dsl.Input[ValueSet],
    checkpoint: dsl.Input[ValueCheckpoint],
    frames: dsl.Input[FrameCache],
    variant: str,
    seed: int,
    stages: dict,
    launch: dict,
    output_root: str,
    policy: dsl.Output[PolicyCheckpoint],
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.Markdown],
) -> str:
    """Train a policy: conditioned on advantage, or one of the baselines it is compared with."""
    from robolift.stages.component import run_component

    made = {"labels": labels, "values": values, "checkpoint": checkpoint, "frames": frames}
    return run_component(
        "train_policy",
        artifact=policy,
        shown={"metrics": metrics, "page": page},
        output_root=output_root,
        stages=stages,
        launch=launch,
        inputs={"dataset": dataset, **made},
        variant=variant,
        seed=seed,
    )
