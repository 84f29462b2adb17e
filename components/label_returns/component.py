"""Turn outcomes into value targets and rewards."""

from kfp import dsl

from components._artifacts import EpisodeDataset, ValueTargets
from components._images import image


@dsl.component(base_image=image("label_returns"), install_kfp_package=False)
def label_returns(
    dataset: dsl.Input[EpisodeDataset],
    stages: dict,
    output_root: str,
    targets: dsl.Output[ValueTargets],
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.Markdown],
) -> str:
    """Turn outcomes into value targets and rewards."""
    from robolift.stages.component import run_component

    return run_component(
        "label_returns",
        artifact=targets,
        shown={"metrics": metrics, "page": page},
        output_root=output_root,
        stages=stages,
        inputs={"dataset": dataset},
    )
