"""Train a progress estimator: the same step on annotated progress, which needs no value targets.

An artifact that a pipeline doesn't make can't be left out of a component's signature, so this is one of its own.
"""

from kfp import dsl

from components._artifacts import EpisodeDataset, FrameCache, ValueCheckpoint
from components._launch import step_image


@dsl.component(base_image=step_image("train_value"), install_kfp_package=False)
def train_value(
    dataset: dsl.Input[EpisodeDataset],
    frames: dsl.Input[FrameCache],
    head: str,
    seed: int,
    stages: dict,
    launch: dict,
    output_root: str,
    checkpoint: dsl.Output[ValueCheckpoint],
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.Markdown],
) -> str:
    """Train a progress estimator on annotated episodes."""
    from robolift.stages.component import run_component

    return run_component(
        "train_value",
        artifact=checkpoint,
        shown={"metrics": metrics, "page": page},
        output_root=output_root,
        stages=stages,
        launch=launch,
        inputs={"dataset": dataset, "frames": frames},
        head=head,
        seed=seed,
    )
