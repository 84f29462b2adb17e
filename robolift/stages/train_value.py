"""Train the value model: on one process, on several of this machine, or as one pod of a distributed job."""

from __future__ import annotations

import time
from typing import ClassVar

from robolift import storage
from robolift.manifest import Output, Plan
from robolift.schema import Kind
from robolift.stages.stage import Input, Inputs, StageConfig
from robolift.value_model.recipe import Recipe

INPUTS = {"dataset": Input(kind=Kind.DATASET), "targets": Input(kind=Kind.TARGETS, optional=True)}
OUTPUT = Kind.VALUE_CHECKPOINT
POLL_S = 0.5
PUBLISH_TIMEOUT_S = 600.0


class Config(StageConfig, Recipe):
    """How the value model is trained."""

    RUNTIME: ClassVar[frozenset[str]] = frozenset({"save_every"})


def run(config: Config, inputs: Inputs, output: Output) -> dict[str, int]:
    """Write model.safetensors, checkpoint.json, curves.json and the states to keep as checkpoints/<step>.

    A killed run goes on where it stopped.
    """
    from robolift.training.distributed import publishes  # noqa: PLC0415  (torch takes seconds to import)
    from robolift.value_model.train import CURVES_FILE, Places, train  # noqa: PLC0415

    targets = inputs.get_one("targets")
    places = Places(
        dataset_uri=inputs.one("dataset").uri,
        targets_uri=targets.uri if targets else "",
        work_uri=output.plan.work_uri,
        folder=str(output.path),
    )
    train(Recipe(**{name: getattr(config, name) for name in Recipe.model_fields}), places)
    if not publishes():
        wait_for(output.plan)
        return {}
    curves = storage.read_json(str(output.path / CURVES_FILE))
    output.metrics.update(summary(curves))
    return {"steps": config.steps, "episodes": inputs.one("dataset").counts.get("episodes", 0)}


def summary(curves: dict[str, list[dict[str, float]]]) -> dict[str, float]:
    """Return the last row of each curve, its names prefixed with ``train_`` or ``val_``."""
    short = {"train": "train", "validation": "val"}
    return {f"{short[name]}_{key}": value for name, rows in curves.items() if rows for key, value in rows[-1].items()}


def wait_for(plan: Plan) -> None:
    """Wait until the main process of the job has published, so that no pod reports success for it.

    Raises:
        TimeoutError: If it doesn't within ten minutes.
    """
    deadline = time.monotonic() + PUBLISH_TIMEOUT_S
    while not plan.finished():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{plan.uri} was not published by the main process")
        time.sleep(POLL_S)
