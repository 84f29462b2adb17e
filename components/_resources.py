"""What each stage asks of a node. Locally ignored; on a cluster it decides placement."""

import dataclasses
import functools
import re
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping

from kfp.dsl import PipelineTask
from kfp.dsl.structures import ResourceSpec

from components import _environment, _pools
from components._pod import PLATFORM, Pod
from robolift.errors import UsageError
from robolift.launch.cluster import NAMESPACE_VARIABLE, RUN_ID_VARIABLE, WORKFLOW_VARIABLE
from robolift.launch.pod import UNDISTURBED
from robolift.launch.spec import NAME_LABELS, PROCESS, QUEUE_LABEL, STAGE_LABEL

USER, GROUP = 10001, 0
"""Who the images' processes are; group 0 is what their writable folders belong to."""


@dataclass(frozen=True, kw_only=True)
class Resources:
    """A named size: what a pod gets, on which pool, for how long, and the retries its kind of work deserves."""

    cpu: str
    memory: str
    pool: str = "cpu"
    gpus: int = 0
    shared_memory: str = ""
    hours: int = 24
    retries: int = 2


SIZES = {
    "cpu.small": Resources(cpu="1", memory="2Gi"),
    "cpu.large": Resources(cpu="8", memory="32Gi", hours=72),
    "gpu.small": Resources(cpu="8", memory="64Gi", pool="gpu", gpus=1, shared_memory="16Gi", hours=72),
    "gpu.large": Resources(cpu="16", memory="128Gi", pool="gpu", gpus=1),
}

STAGE_SIZES = {
    "check_run": "cpu.small",
    "check_dataset": "cpu.small",
    "plan_shards": "cpu.small",
    "plan_stage_advantage": "cpu.small",
    "check_labeling": "cpu.small",
    "check_clips": "cpu.small",
    "check_address": "cpu.small",
    "check_reward": "cpu.small",
    "simulate_episodes": "cpu.large",
    "import_replay_buffer": "cpu.large",
    "import_dataset": "cpu.large",
    "pack_frames": "cpu.large",
    "label_returns": "cpu.small",
    "train_value": "gpu.large",
    "predict_values": "gpu.small",
    "merge_values": "cpu.small",
    "plan_labels": "cpu.small",
    "annotate_rewards": "cpu.small",  # where a server computes; else as the placement file's labeller says
    "collect_rewards": "cpu.small",
    "import_reviews": "cpu.small",
    "import_rewards": "cpu.small",
    "label_quality": "cpu.small",
    "merge_rewards": "cpu.small",
    "label_advantage": "cpu.small",
    "export_dataset": "cpu.large",
    "compute_norm_stats": "cpu.small",
    "train_policy": "gpu.large",
    "evaluate_policy": "cpu.large",
    "simulate_videos": "cpu.large",
    "ingest_videos": "cpu.large",
    "extract_clips": "cpu.large",
    "extract_features": "cpu.large",
    "merge_features": "cpu.small",
    "propose_pairs": "cpu.small",
    "simulate_preferences": "cpu.small",
    "import_preferences": "cpu.small",
    "train_reward": "cpu.small",
    "score_clips": "cpu.small",
    "train_downstream": "cpu.large",
    "validate_reward": "cpu.small",
    "write_report": "cpu.small",
}

QUANTITIES = {"cpu": re.compile(r"([0-9]*\.)?[0-9]+m?"), "memory": re.compile(r"[0-9]+([EPTGM]i?|Ki?)?")}
"""What KFP takes of Kubernetes' quantities."""

LAUNCHER_SIZE = "cpu.small"
TRAINERS = {"train_value": "trainer", "train_policy": "policyTrainer"}
"""Where the placement file says how a stage that trains is run."""
LABELLER, ENCODER = "annotate_rewards", "extract_features"
PLACED = {LABELLER: "labeller", ENCODER: "encoder"}
"""The stages that may hold a model in the step, and where the placement file says on what nodes."""

# Argo counts the longest back-off from the first attempt's start: one hour, its default, would never retry a long step.
RETRY_WINDOW = "604800s"
OWN_POD = {
    RUN_ID_VARIABLE: "metadata.labels['pipeline/runid']",
    WORKFLOW_VARIABLE: "metadata.labels['workflows.argoproj.io/workflow']",
    NAMESPACE_VARIABLE: "metadata.namespace",
}
"""What a step that launches a job must know of itself. Not by parameters: each would make KFP's cache key differ."""


def size(name: str) -> Resources:
    """Return a named size; the placement file's ``sizes`` may give it other ``cpu`` and ``memory``.

    Raises:
        UsageError: If the placement file names a size that there isn't, or gives one something else.
    """
    told = _pools.values().get("sizes") or {}
    if unknown := sorted(set(told) - set(SIZES)):
        raise UsageError(f"sizes.{unknown[0]} in {_pools.source()}: no such size; there are: {', '.join(SIZES)}")
    own = told.get(name) or {}
    if wrong := sorted(set(own) - {"cpu", "memory"}):
        raise UsageError(f"sizes.{name}.{wrong[0]} in {_pools.source()}: expected cpu or memory")
    for key, value in own.items():
        if not QUANTITIES[key].fullmatch(str(value)):
            raise UsageError(
                f"sizes.{name}.{key} in {_pools.source()} is {value!r}; expected a quantity such as "
                + {"cpu": "2 or 500m", "memory": "16Gi"}[key]
            )
    return dataclasses.replace(SIZES[name], **{key: str(value) for key, value in own.items()})


def is_launched(stage: str) -> bool:
    """Tell whether the step of a stage only watches a job of its own."""
    return stage in TRAINERS and _pools.trainer(TRAINERS[stage]).backend != PROCESS


def resources(stage: str) -> Resources:
    """Return what the step of a stage gets.

    A policy that trains in its step gets a whole node's GPUs, a value model as many as it has processes.

    Raises:
        UsageError: If there is no such pool, or its nodes have fewer GPUs.
    """
    if stage not in TRAINERS or is_launched(stage):
        asked = _placed(stage) if stage in PLACED else size(LAUNCHER_SIZE if stage in TRAINERS else STAGE_SIZES[stage])
        pool = _pools.pool(asked.pool)
        gpus = asked.gpus if pool.gpus else 0
    else:
        told = _pools.trainer(TRAINERS[stage])
        pool = _pools.pool(told.pool)
        gpus = (told.processes_per_node if stage == "train_value" else pool.gpus) if pool.gpus else 0
        hours = -(-told.active_deadline_seconds // 3600)
        named = size(STAGE_SIZES[stage])
        asked = dataclasses.replace(named, pool=pool.name, shared_memory=told.shared_memory, hours=hours)
    if gpus > pool.gpus:
        raise UsageError(
            f"{stage} asks for {gpus} GPUs, a node of pool {pool.name} has {pool.gpus} in {_pools.source()}"
        )
    return dataclasses.replace(asked, gpus=gpus)


def _placed(stage: str) -> Resources:
    told = _pools.step_place(PLACED[stage])
    named = told.size or STAGE_SIZES[stage]
    if named not in SIZES:
        raise UsageError(f"{PLACED[stage]}.size in {_pools.source()} is {named}; there are: {', '.join(SIZES)}")
    asked = size(named)
    return dataclasses.replace(asked, pool=told.pool or asked.pool)


def step_environment(stage: str) -> List[Dict[str, Any]]:
    """Return the variables of a stage's step besides the store's: its model's, its job's if it trains by itself.

    Raises:
        UsageError: If they come from where a pipeline's step can't take them.
    """
    if stage in PLACED:
        return _pools.step_place(PLACED[stage]).env
    if stage not in TRAINERS or is_launched(stage):
        return []
    told = _pools.trainer(TRAINERS[stage])
    if told.env_from:
        raise UsageError(
            f"{TRAINERS[stage]}.envFrom in {_pools.source()} needs a backend other than process: a pipeline's step "
            "takes single keys of a Secret, as env or storage.env name them"
        )
    return told.env


def place(task: PipelineTask) -> PipelineTask:
    """Give ``task`` the resources, retries and variables of its stage and return it; :func:`with_pods` does the rest.

    KFP's cache is off: it can't see that the files behind an address changed. Stages find finished work themselves.

    Raises:
        UsageError: If the placement file doesn't define the pool.
    """
    stage = task.component_spec.name.replace("-", "_")
    asked = resources(stage)
    found = _pools.placement(asked.pool)
    assert task.container_spec is not None
    # At once: each of the task's own setters inspects the whole stack of calls, a third of a pipeline's compilation.
    task.container_spec.resources = ResourceSpec(
        cpu_request=asked.cpu,
        memory_request=asked.memory,
        memory_limit=asked.memory,
        accelerator_type=found.gpu_resource if asked.gpus else None,
        accelerator_count=str(asked.gpus) if asked.gpus else None,
    )
    _environment.give(task, step_environment(stage))
    task.set_caching_options(False)
    return task.set_retry(asked.retries, "60s", 2.0, RETRY_WINDOW)


def with_pods(spec: Mapping[str, Any], platform: Mapping[str, Any]) -> Dict[str, Any]:
    """Return what is asked of Kubernetes for a compiled pipeline: for each step the pod of its stage.

    KFP would copy what each task is given from pipeline to pipeline, again for every step: half the time to compile.

    Args:
        spec: The pipeline's specification.
        platform: What KFP has of its steps already, such as the Secrets they read.
    """
    told = ((platform.get("platforms") or {}).get(PLATFORM) or {}).get("deploymentSpec") or {}
    executors = dict(told.get("executors") or {})
    pods = functools.cache(pod)
    for label, executor in spec["deploymentSpec"]["executors"].items():
        executors[label] = {**executors.get(label, {}), **pods(_stage_of(executor)).config()}
    return {"platforms": {PLATFORM: {"deploymentSpec": {"executors": executors}}}}


def _stage_of(executor: Mapping[str, Any]) -> str:
    """Return the stage of a compiled step: a component has its function's name, and KFP tells its executor that."""
    words = executor["container"]["args"]
    return str(words[words.index("--function_to_execute") + 1])


def pod(stage: str) -> Pod:
    """Return the nodes, labels and user of a stage's steps.

    Raises:
        UsageError: If the placement file doesn't define the pool.
    """
    asked = resources(stage)
    found = _pools.placement(asked.pool)
    labels = {"app.kubernetes.io/name": NAME_LABELS["app.kubernetes.io/name"], STAGE_LABEL: stage}
    launched = is_launched(stage)
    return Pod(
        node_selector=found.node_selector,
        tolerations=found.tolerations,
        labels={**labels, **({QUEUE_LABEL: found.queue} if found.queue else {})},
        annotations=UNDISTURBED if stage in TRAINERS else {},
        user=USER,
        group=GROUP,
        shared_memory=asked.shared_memory,
        field_paths=OWN_POD if launched else {},
        # A step that watches has no deadline: the job may wait in a queue for days, and has one of its own.
        deadline_s=None if launched else asked.hours * 3600,
    )
