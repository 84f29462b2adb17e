"""Check a run's parameters and places before anything is spent, and say where this iteration's episodes come from."""

from typing import List

from kfp import dsl

from components._images import image


@dsl.component(base_image=image("check_run"), install_kfp_package=False)
def check_run(
    output_root: str,
    stages: dict,
    iteration: int,
    dataset_uri: str,
    rollout_uris: List[str],
    lookahead: int,
    positive_fraction: float,
    num_shards: int,
    baselines: List[str],
    seed: int,
) -> str:
    """Check a run before anything is spent; return the address of this iteration's episodes, empty to simulate."""
    from robolift.stages import preflight
    from robolift.stages.component import run_check

    return run_check(
        preflight.check_run,
        output_root=output_root,
        iteration=iteration,
        source_uris=[dataset_uri, *rollout_uris],
        lookahead=lookahead,
        positive_fraction=positive_fraction,
        num_shards=num_shards,
        baselines=baselines,
        seed=seed,
        stages=stages,
    )
