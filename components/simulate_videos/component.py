"""Render egocentric videos of known quality."""

from kfp import dsl

from components._artifacts import Recording
from components._images import image


@dsl.component(base_image=image("simulate_videos"), install_kfp_package=False)
def simulate_videos(
    seed: int,
    stages: dict,
    output_root: str,
    recording: dsl.Output[Recording],
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.Markdown],
) -> str:
    """Render egocentric videos of known quality."""
    from robolift.stages.component import run_component

    return run_component(
        "simulate_videos",
        artifact=recording,
        shown={"metrics": metrics, "page": page},
        output_root=output_root,
        stages=stages,
        seed=seed,
    )
