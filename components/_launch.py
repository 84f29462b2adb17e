"""Which stages run as jobs of their own, and how: a constant of the compiled pipeline, from the placement file."""

import dataclasses
import sys
from typing import Any, Dict

from components import _pools
from components._images import image, image_named
from components._resources import STAGE_SIZES, TRAINERS, is_launched, resources, size
from robolift.errors import UsageError
from robolift.launch.spec import Launch


def check_placement() -> None:
    """End this process with 64 and a clear message if a stage's pool is not defined or the placement file is wrong."""
    try:
        for stage in STAGE_SIZES:
            _pools.placement(resources(stage).pool)
        for stage in TRAINERS:
            launch(stage)
    except UsageError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)


def step_image(stage: str) -> str:
    """Return the image of a stage's step: one that only watches a job needs neither torch nor JAX."""
    return image_named("cpu") if is_launched(stage) else image(stage)


def launch(stage: str) -> Dict[str, Any]:
    """Return the ``launch`` parameter of a stage's step; empty if the step does the work itself.

    Raises:
        UsageError: If the placement file names a pool that it doesn't define, its nodes have too few GPUs, or it is
            wrong otherwise.
    """
    if not is_launched(stage):
        return {}
    told = _pools.trainer(TRAINERS[stage])
    asked = size(STAGE_SIZES[stage])
    values = _pools.values()
    queued = [entry["name"] for entry in (values.get("kueue") or {}).get("priorities") or []]
    is_workload = told.priority_class in queued
    placement = _pools.placement(told.pool)
    if 0 < placement.gpus < told.processes_per_node:
        raise UsageError(
            f"{TRAINERS[stage]}.processesPerNode is {told.processes_per_node} in {_pools.source()}, "
            f"a node of pool {told.pool} has {placement.gpus} GPUs"
        )
    found = Launch(
        backend=told.backend,
        image=image(stage),
        placement=placement,
        cpu=asked.cpu,
        memory=asked.memory,
        shared_memory=told.shared_memory,
        active_deadline_s=told.active_deadline_seconds,
        ttl_s=told.ttl_seconds_after_finished,
        service_account=values["serviceAccounts"]["trainer"]["name"],
        processes_per_node=told.processes_per_node,
        socket_interface=told.socket_interface,
        scheduler_name=told.scheduler_name,
        priority_class="" if is_workload else told.priority_class,
        workload_priority=told.priority_class if is_workload else "",
        env=told.env,
        env_from=told.env_from,
    )
    return dataclasses.asdict(found)
