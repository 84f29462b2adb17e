"""Train the value model on camera images, state and task text."""

from kfp import dsl

from components._artifacts import EpisodeDataset, FrameCache, ValueCheckpoint, ValueTargets
from components._launch import step_image


@dsl.component(base_image=step_image("train_value"), install_kfp_package=False)
def train_value(
    dataset: dsl.Input[EpisodeDataset],
    targets: dsl.Input[ValueTargets],
    frames: dsl.Input[FrameCache],
    seed: int,
    stages: dict,
    launch: dict,
    output_root: str,
    checkpoint: dsl.Output[ValueCheckpoint],
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.Markdown],
) -> str:
    """Train the value model on camera images, state and task text."""
    from robolift.stages.component import run_component

    return run_component(
        "train_value",
        artifact=checkpoint,
        shown={"metrics": metrics, "page": page},
        output_root=output_root,
        stages=stages,
        launch=launch,
        inputs={"dataset": dataset, "targets": targets, "frames": frames},
        seed=seed,
    )
