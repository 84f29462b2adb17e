"""Train the value model: on one process, on several of this machine, or as one pod of a distributed job."""

from __future__ import annotations

from typing import ClassVar

from robolift import storage
from robolift.manifest import Output
from robolift.schema import Kind
from robolift.stages.frames_input import given_frames
from robolift.stages.frames_input import input_identity as input_identity
from robolift.stages.joint_output import wait_for
from robolift.stages.profiled import ProfiledConfig
from robolift.stages.stage import Input, Inputs
from robolift.value_model.recipe import RUNTIME, Recipe

INPUTS = {
    "dataset": Input(kind=Kind.DATASET),
    "targets": Input(kind=Kind.TARGETS, optional=True),
    "frames": Input(kind=Kind.FRAMES, optional=True),
}
OUTPUT = Kind.VALUE_CHECKPOINT


class Config(ProfiledConfig, Recipe):
    """How the value model is trained."""

    RUNTIME: ClassVar[frozenset[str]] = ProfiledConfig.RUNTIME | RUNTIME


def identity(config: Config) -> dict[str, str]:
    """Return the digests of first weights and tokenizer, so that another file at the same address is another model."""
    from robolift.data.models import model_digest  # noqa: PLC0415

    stated = {"weights_sha256": config.weights, "tokenizer_sha256": config.tokenizer}
    return {name: getattr(config, name) or model_digest(uri) for name, uri in stated.items() if uri}


def run(config: Config, inputs: Inputs, output: Output) -> dict[str, int]:
    """Write model.safetensors, checkpoint.json, curves.json and the states to keep as checkpoints/<step>.

    A killed run goes on where it stopped.
    """
    from robolift.training.distributed import publishes  # noqa: PLC0415  (torch takes seconds to import)
    from robolift.value_model.train import CURVES_FILE, Places, train  # noqa: PLC0415

    targets, cache = inputs.get_one("targets"), given_frames(inputs)
    profile = config.recording(output.plan)
    places = Places(
        dataset_uri=inputs.one("dataset").uri,
        targets_uri=targets.uri if targets else "",
        frames_uri=cache.uri if cache else "",
        work_uri=output.plan.work_uri,
        folder=str(output.path),
        profile_steps=profile.steps,
        profile_uri=profile.uri,
    )
    settings = {name: getattr(config, name) for name in Recipe.model_fields}
    # What was planned is what is loaded, and a file that changes in between is refused.
    train(Recipe(**{**settings, **output.plan.identity}), places)
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
