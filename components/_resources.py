"""What each stage asks of a node. Locally ignored; on a cluster it decides placement."""

from dataclasses import dataclass

from kfp.dsl import PipelineTask


@dataclass(frozen=True, kw_only=True)
class Resources:
    """A named size: CPU cores, memory, GPUs and the retries that its kind of work deserves."""

    cpu: str
    memory: str
    gpus: int = 0
    retries: int = 2


SIZES = {
    "cpu.small": Resources(cpu="1", memory="2Gi"),
    "cpu.large": Resources(cpu="8", memory="32Gi"),
    "gpu.small": Resources(cpu="8", memory="64Gi", gpus=1),
    "gpu.large": Resources(cpu="16", memory="128Gi", gpus=1),
}

STAGE_SIZES = {
    "check_run": "cpu.small",
    "check_dataset": "cpu.small",
    "plan_shards": "cpu.small",
    "plan_stage_advantage": "cpu.small",
    "simulate_episodes": "cpu.large",
    "import_dataset": "cpu.large",
    "label_returns": "cpu.small",
    "train_value": "gpu.large",
    "predict_values": "gpu.small",
    "merge_values": "cpu.small",
    "label_advantage": "cpu.small",
    "export_dataset": "cpu.large",
    "compute_norm_stats": "cpu.small",
    "train_policy": "gpu.large",
    "evaluate_policy": "cpu.large",
    "write_report": "cpu.small",
}

# Argo counts the longest back-off from the first attempt's start: one hour, its default, would never retry a long step.
RETRY_WINDOW = "604800s"


def place(task: PipelineTask) -> PipelineTask:
    """Give ``task`` the resources and retries of its stage and return it.

    KFP's cache is off: it can't see that the files behind an address changed. Stages find finished work themselves.
    """
    size = SIZES[STAGE_SIZES[task.component_spec.name.replace("-", "_")]]
    task.set_cpu_request(size.cpu).set_memory_request(size.memory).set_memory_limit(size.memory)
    if size.gpus:
        task.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(size.gpus)
    task.set_caching_options(False)
    return task.set_retry(size.retries, "60s", 2.0, RETRY_WINDOW)
