"""Let simulated annotators compare clips of simulated videos, as people do on the labelling page."""

from kfp import dsl

from components._artifacts import ClipSet, PairSet, Recording
from components._images import image


@dsl.component(base_image=image("simulate_preferences"), install_kfp_package=False)
def simulate_preferences(
    pairs: dsl.Input[PairSet],
    clips: dsl.Input[ClipSet],
    seed: int,
    stages: dict,
    output_root: str,
    recording: dsl.Output[Recording],
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.Markdown],
) -> str:
    """Let simulated annotators compare clips of simulated videos, as people do on the labelling page."""
    from robolift.stages.component import run_component

    return run_component(
        "simulate_preferences",
        artifact=recording,
        shown={"metrics": metrics, "page": page},
        output_root=output_root,
        stages=stages,
        inputs={"pairs": pairs, "clips": clips},
        seed=seed,
    )
