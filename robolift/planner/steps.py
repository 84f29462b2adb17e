"""The steps of a pipeline whose cost is known, in the order in which they first run, how often, and what a pod gets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

MOST_SHARDS = 64
"""What a manifest has room for. Each is three pods on a cluster; more of them only wait for one another."""
PARALLELISM = 8
"""Shards that a pipeline runs at a time."""
PODS_OF_A_TASK = 2
"""Kubeflow runs a driver and an executor for each."""
PODS_OF_A_PART = 1 + PODS_OF_A_TASK
"""Each iteration of a loop is a graph of its own, which has a driver too."""
DEFAULT_SHARDS = 2
"""What the pipelines cut a prediction into unless they are told."""
DATASETS: Mapping[str, int] = {"recap": 1, "stage_advantage": 2}
"""stage_advantage learns from labelled episodes and labels new ones: it imports, packs and predicts both."""
FORMATS: Mapping[str, float] = {"raw": 1.0, "png": 2 / 3, "jpeg": 1 / 12, "none": 0.0}
"""About what share of its pixels' bytes a packed picture takes, by pack_frames' format (docs/frames.md)."""

Kind = Literal["task", "packing", "shards", "training"]


@dataclass(frozen=True)
class Step:
    """One step.

    Attributes:
        stage: What runs.
        kind: One process, the processes that pack pictures, a process for each shard, or a job on GPUs.
        memory_gib: What its pod gets (components/_resources.py).
        hours: After how long it is ended, and tried again.
        cores: Of its pod, which it uses.
        each: Whether it runs for each dataset of the pipeline, not for the new episodes alone.
    """

    stage: str
    kind: Kind
    memory_gib: int
    hours: int = 24
    cores: int = 1
    each: bool = False


IMPORT = Step("import_dataset", "task", 32, 72, each=True)
PACK = Step("pack_frames", "packing", 32, 72, cores=8)
"""Runs for the value model on each dataset, and once more for the policy, which may look otherwise."""
LABEL = Step("label_advantage", "task", 2, each=True)
LEARN = (
    Step("train_value", "training", 128),
    Step("predict_values", "shards", 64, 72, each=True),
    Step("merge_values", "task", 2, each=True),
)
POLICY = Step("train_policy", "training", 128)
REPORT = Step("write_report", "task", 2)

PIPELINES: Mapping[str, tuple[Step, ...]] = {
    "recap": (
        IMPORT,
        Step("label_returns", "task", 2),
        PACK,
        *LEARN,
        LABEL,
        Step("export_dataset", "task", 32, 72),
        POLICY,
        REPORT,
    ),
    "stage_advantage": (IMPORT, PACK, *LEARN, LABEL, Step("compute_norm_stats", "task", 2), POLICY, REPORT),
}
UNMEASURED: Mapping[str, Mapping[str, int]] = {
    "recap": {"check_run": 1, "check_dataset": 1, "plan_shards": 1, "evaluate_policy": 1},
    "stage_advantage": {"plan_stage_advantage": 1, "check_dataset": 2, "plan_shards": 2, "evaluate_policy": 1},
}
"""How often steps run that cost the same however much was recorded, and the evaluation, whose cost is the simulator's;
baselines come on top."""
GRAPHS: Mapping[str, int] = {"recap": 8, "stage_advantage": 11}
"""Graphs of a pipeline of one iteration, each with a driver: the whole, pipelines inside, loops, conditions."""


def runs(pipeline: str, step: Step, baselines: int) -> int:
    """Return how often a pipeline runs a step."""
    if step.kind == "packing":
        return DATASETS[pipeline] + 1
    if step.stage == POLICY.stage:
        return 1 + baselines
    return DATASETS[pipeline] if step.each else 1
