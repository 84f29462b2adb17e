"""Decide how prediction is cut into shards of whole episodes."""

from typing import List

from kfp import dsl

from components._images import image


@dsl.component(base_image=image("plan_shards"), install_kfp_package=False)
def plan_shards(num_shards: int) -> List[int]:
    """Decide how prediction is cut into shards of whole episodes; never an empty list."""
    from robolift.stages import preflight
    from robolift.stages.component import run_check

    return run_check(preflight.plan_shards, num_shards)
