"""The steps of a pipeline whose cost is known, in the order in which they run, and what a pod of each gets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

MOST_SHARDS = 64
"""What a manifest has room for, and what a pipeline is compiled for."""
PARALLELISM = 8
"""Shards that a pipeline runs at a time."""
PODS_OF_A_TASK = 2
"""Kubeflow runs a driver and an executor for each."""

Kind = Literal["task", "shards", "training"]


@dataclass(frozen=True)
class Step:
    """One step.

    Attributes:
        stage: What runs.
        kind: One process, one for each shard, or a job on GPUs.
        memory_gib: What its pod gets (components/_resources.py).
        hours: After how long it is ended, and tried again.
    """

    stage: str
    kind: Kind
    memory_gib: int
    hours: int = 24


IMPORT = Step("import_dataset", "task", 32, 72)
PACK = Step("pack_frames", "task", 32, 72)
LABEL = Step("label_advantage", "task", 2)
LEARN = (
    Step("train_value", "training", 128),
    Step("predict_values", "shards", 64, 72),
    Step("merge_values", "task", 2),
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
UNMEASURED: Mapping[str, tuple[str, ...]] = {
    "recap": ("check_run", "check_dataset", "plan_shards", "evaluate_policy"),
    "stage_advantage": ("plan_stage_advantage", "check_dataset", "plan_shards", "evaluate_policy"),
}
"""Steps that cost the same however much was recorded, and the evaluation, which costs what the simulator does."""
