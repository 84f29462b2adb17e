"""Record episodes in the simulator: scripted, or with the policy of the iteration before."""

from kfp import dsl

from components._artifacts import Recording
from components._images import image


@dsl.component(base_image=image("simulate_episodes"), install_kfp_package=False)
def simulate_episodes(
    policy_uri: str,
    seed: int,
    stages: dict,
    output_root: str,
    recording: dsl.Output[Recording],
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.Markdown],
) -> str:
    """Record episodes in the simulator: scripted, or with the policy of the iteration before."""
    from robolift.stages.component import run_component

    return run_component(
        "simulate_episodes",
        artifact=recording,
        shown={"metrics": metrics, "page": page},
        output_root=output_root,
        stages=stages,
        inputs={"policy": policy_uri},
        seed=seed,
    )
