"""Check a reward_labeling run before anything is spent, and say what its steps are told."""

from typing import NamedTuple

from kfp import dsl

from components._images import image


@dsl.component(base_image=image("check_labeling"), install_kfp_package=False)
def check_labeling(
    output_root: str,
    dataset_uri: str,
    mode: str,
    model: str,
    endpoint: str,
    protocol: str,
    reviews_uri: str,
    reward: str,
    num_shards: int,
    seed: int,
    stages: dict,
) -> NamedTuple("RunPlan", [("dataset_uri", str), ("stages", dict)]):
    """Check a run before anything is spent; return the dataset, empty to simulate, and what the stages are told."""
    from robolift.stages import labeling_plan
    from robolift.stages.component import run_check

    return run_check(
        labeling_plan.plan,
        output_root=output_root,
        dataset_uri=dataset_uri,
        mode=mode,
        model=model,
        endpoint=endpoint,
        protocol=protocol,
        reviews_uri=reviews_uri,
        reward=reward,
        num_shards=num_shards,
        seed=seed,
        stages=stages,
    )
