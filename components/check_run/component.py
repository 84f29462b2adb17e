"""Check a run's parameters and places before anything is spent, and say where this iteration's episodes come from."""

from typing import List

from kfp import dsl

from components._images import image


@dsl.component(base_image=image("check_run"), install_kfp_package=False)
def check_run(
    output_root: str, stages: dict, iteration: int, dataset_uri: str, rollout_uris: List[str], baselines: List[str]
) -> str:
    """Check a run before anything is spent; return the address of this iteration's episodes, empty to simulate."""
    from robolift.stages import preflight

    return preflight.check_run(
        output_root=output_root,
        stages=stages,
        iteration=iteration,
        source_uris=[dataset_uri, *rollout_uris],
        baselines=baselines,
    )
