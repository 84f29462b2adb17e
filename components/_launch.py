"""Which stages run as jobs of their own, and how: a constant of the compiled pipeline, from the placement file."""

import dataclasses
import sys
from typing import Any, Collection, Dict, List, Mapping

from components import _environment, _parameters, _pools
from components._images import image, image_named
from components._resources import (
    ENCODER,
    LABELLER,
    STAGE_SIZES,
    TRAINERS,
    is_launched,
    resources,
    size,
    step_environment,
)
from robolift.errors import UsageError
from robolift.launch.spec import Launch


def check_placement() -> None:
    """End this process with 64 and a clear message if a stage's pool is not defined or the placement file is wrong."""
    try:
        for stage in STAGE_SIZES:
            _pools.placement(resources(stage).pool)
            _environment.of_step(step_environment(stage))
        for stage in TRAINERS:
            launch(stage)
    except UsageError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)


def check_shapes(steps: Collection[str], parameters: Mapping[str, Any]) -> List[str]:
    """Check that what a run would launch fits where it is placed, so that none of it is refused hours after the start.

    Args:
        steps: The stages of the pipeline.
        parameters: The run's parameters.

    Returns:
        What is allowed and hardly meant, a line each.

    Raises:
        UsageError: If a job would not fit, or a step would compute on a GPU that it doesn't get.
    """
    from robolift.stages import remote  # compiling checks no stage's configuration
    from robolift.stages.stage import parse_config

    stages = _parameters.stages_of(parameters)
    doubts = []
    for stage in (*TRAINERS, "predict_values", LABELLER):
        if stage not in steps:
            continue
        config = parse_config(stage, stages.get(stage) or {})
        if stage == LABELLER:
            doubts += _labeller_doubts(getattr(config, "device", ""), parameters)
            continue
        if is_launched(stage):
            remote.shape(stage, config, Launch.from_dict(launch(stage)))
        pool = _pools.pool(_pools.trainer(TRAINERS[stage]).pool if stage in TRAINERS else resources(stage).pool)
        if pool.gpus and getattr(config, "device", "") == "cpu":
            doubts.append(
                f"stages.{stage}.device is cpu, and pool {pool.name} has GPUs that would idle; set it to cuda"
            )
    return [*doubts, *(_encoder_doubts(stages.get(ENCODER) or {}) if ENCODER in steps else [])]


def _encoder_doubts(config: Mapping[str, Any]) -> List[str]:
    on_gpu, gpus = config.get("device") == "cuda", resources(ENCODER).gpus
    if on_gpu and not gpus:
        raise UsageError(
            f"stages.{ENCODER}.device is cuda, and its step gets no GPU; set encoder.size to gpu.small in "
            f"{_pools.source()}"
        )
    idle = f"stages.{ENCODER}.device is cpu, and its step gets GPUs that would idle; set it to cuda"
    return [idle] if gpus and not on_gpu else []


def _labeller_doubts(device: str, parameters: Mapping[str, Any]) -> List[str]:
    asked = resources(LABELLER)
    in_step = bool(parameters.get("model")) and not parameters.get("endpoint")
    if not in_step:
        idle = f"no model runs in the step, and {asked.gpus} GPUs of labeller.size would idle; set it to cpu.small"
        return [idle] if asked.gpus else []
    if device == "cuda" and not asked.gpus:
        raise UsageError(
            f"stages.{LABELLER}.device is cuda, and its step gets no GPU; set labeller.size to gpu.small in "
            f"{_pools.source()}, or give the endpoint of a server that has one"
        )
    if device == "cuda":
        return []
    if asked.gpus:
        return [f"stages.{LABELLER}.device is cpu, and its step gets GPUs that would idle; set it to cuda"]
    return [f"a model in the step computes with {asked.cpu} CPUs and {asked.memory}; labeller.size says so"]


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
        env=_environment.merged(told.env),
        env_from=told.env_from,
    )
    return dataclasses.asdict(found)
