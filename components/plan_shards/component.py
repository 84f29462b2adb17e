"""Decide how prediction is cut into shards of whole episodes."""

from typing import List

from kfp import dsl

from components._artifacts import EpisodeDataset
from components._images import image


@dsl.component(base_image=image("plan_shards"), install_kfp_package=False)
def plan_shards(dataset: dsl.Input[EpisodeDataset], num_shards: int) -> List[int]:
    """Decide how prediction is cut into shards of whole episodes; never an empty list."""
    from robolift.stages import preflight

    return preflight.plan_shards(dataset.path, num_shards=num_shards)
