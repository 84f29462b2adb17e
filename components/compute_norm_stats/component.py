"""Measure states and actions for normalisation."""

from kfp import dsl

from components._artifacts import EpisodeDataset, NormStats
from components._images import image


@dsl.component(base_image=image("compute_norm_stats"), install_kfp_package=False)
def compute_norm_stats(
    dataset: dsl.Input[EpisodeDataset],
    stages: dict,
    output_root: str,
    norm_stats: dsl.Output[NormStats],
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.Markdown],
) -> str:
    """Measure states and actions for normalisation."""
    from robolift.stages.component import run_component

    return run_component(
        "compute_norm_stats",
        artifact=norm_stats,
        shown={"metrics": metrics, "page": page},
        output_root=output_root,
        stages=stages,
        inputs={"dataset": dataset},
    )
