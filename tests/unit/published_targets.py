"""Publishes a tiny table of value targets, as a stage does."""

from __future__ import annotations

import numpy as np

from robolift.manifest import Manifest, Output, Plan
from robolift.schema import Kind

TABLE = {"episode_index": [0, 0], "frame_index": [0, 1], "value_target": [-1.0, 0.0], "reward": [-1.0, 0.0]}


def make_plan(root, *, digest="0123456789abcdef", config=None, inputs=None) -> Plan:
    return Plan(
        stage="label_returns",
        kind=Kind.TARGETS,
        root=str(root),
        config=config or {"scheme": "task_max"},
        inputs=inputs or {},
        code="c0de",
        digest=digest,
        seed=7,
    )


def make_output(plan: Plan) -> Manifest:
    output = Output(plan)
    output.write_table("targets", TABLE)
    output.metrics["spread"] = np.float32(0.5)
    return output.publish({"frames": np.int64(2)})
