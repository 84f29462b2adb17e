"""Train a policy in JAX: conditioned on advantage, or one of the baselines it is compared with.

On one machine, or on several as the pods of an indexed Job (:mod:`robolift.policy.hosts`).
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field

from robolift.data.models import model_digest
from robolift.errors import UsageError
from robolift.manifest import Output
from robolift.policy import memory
from robolift.policy.pi05.address import resolve
from robolift.policy.recipe import UNLABELLED, Recipe
from robolift.schema import Kind
from robolift.stages.frames_input import check_origin, given_frames
from robolift.stages.frames_input import input_identity as input_identity
from robolift.stages.joint_output import wait_for
from robolift.stages.profiled import ProfiledConfig
from robolift.stages.resumable_run import RUN_FILE, check_resumable, description, stopped_run
from robolift.stages.stage import Input, Inputs

INPUTS = {
    "dataset": Input(kind=Kind.DATASET),
    "labels": Input(kind=Kind.LABELS, optional=True),
    "values": Input(kind=Kind.VALUES, optional=True),
    "checkpoint": Input(kind=Kind.VALUE_CHECKPOINT, optional=True),
    "norm_stats": Input(kind=Kind.NORM_STATS, optional=True),
    "frames": Input(kind=Kind.FRAMES, optional=True),
}
OUTPUT = Kind.POLICY
CURVES_FILE = "curves.json"
EXTERNAL = ("tokenizer", "weights")
"""Settings that are addresses of files that are none of the product's outputs."""


class Config(ProfiledConfig, Recipe):
    """What the policy sees, what it is taught and for how long."""

    # What lies at the addresses decides the result, not the addresses: see identity.
    RUNTIME: ClassVar[frozenset[str]] = frozenset(
        {"save_every", "memory_fraction", "frame_cache", "decode_workers", "loader_workers", "resume_from"}
        | {*EXTERNAL, *(f"{name}_sha256" for name in EXTERNAL), *ProfiledConfig.RUNTIME}
    )

    memory_fraction: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of a GPU's memory that JAX takes when it starts; null: XLA_PYTHON_CLIENT_MEM_FRACTION, else JAX's own 0.75.
    Without effect on a CPU."""
    resume_from: str = ""
    """Where a stopped run that differs from this one in `num_devices` and `fsdp_devices` alone keeps its training
    state, `<output_root>/_work/train_policy/<digest>`: go on from it unless there is a state of this run. That folder
    is only read; keep it until this run has ended. Empty: begin at the first step."""


def identity(config: Config) -> dict[str, Any]:
    """Return what lies outside the product's outputs: digests of files, and the state of another run."""
    found: dict[str, Any] = {}
    if config.tokenizer:
        found["tokenizer"] = config.tokenizer_sha256 or model_digest(config.tokenizer)
    if config.weights:
        found["weights"] = config.weights_sha256 or model_digest(resolve(config.weights))
    if config.resume_from:
        found["resume_from"] = stopped_run(config.resume_from)
    return found


def run(config: Config, inputs: Inputs, output: Output) -> dict[str, int]:
    """Write model.safetensors, policy.json, curves.json, and norm_stats.json if statistics were given.

    A killed run goes on where it stopped.
    """
    check_inputs(config, inputs)
    this_run = description(output.plan)
    if config.resume_from:
        check_resumable(output.plan.identity["resume_from"], this_run, where=config.resume_from)
    if config.memory_fraction is not None:
        memory.reserve(config.memory_fraction)

    from robolift.policy.train import Places, Sources, publishes, train  # noqa: PLC0415  (JAX takes seconds to import)

    # Whatever is read again must be what the plan is of.
    digests = {f"{name}_sha256": output.plan.identity[name] for name in EXTERNAL if name in output.plan.identity}
    trained = train(
        config.model_copy(update=digests),
        Sources(
            dataset=inputs.one("dataset"),
            labels=inputs.get_one("labels"),
            values=inputs.get_one("values"),
            checkpoint=inputs.get_one("checkpoint"),
            norm_stats=inputs.get_one("norm_stats"),
            frames=inputs.get_one("frames"),
        ),
        Places(
            work_uri=output.plan.work_uri,
            folder=output.path,
            resume_from=config.resume_from,
            beside={RUN_FILE: this_run},
            profile=config.recording(output.plan),
        ),
    )
    if not publishes():
        wait_for(output.plan)
        return {}
    output.write_json(CURVES_FILE, trained.curves)
    output.metrics.update({**trained.metrics, **digests})
    if config.recipe:
        output.metrics.update({"recipe": config.recipe, "preset": config.preset})
    return {"steps": config.steps, "episodes": trained.num_episodes, "frames": trained.num_frames}


def check_inputs(config: Config, inputs: Inputs) -> None:
    """Check that what the configuration needs was given, and that it was made for this dataset.

    Raises:
        UsageError: Naming the input.
    """
    needed = {"labels": config.variant not in UNLABELLED}
    needed |= dict.fromkeys(("values", "checkpoint"), config.vision == "frozen")
    for name, is_needed in needed.items():
        given = inputs.get_one(name)
        if is_needed and given is None:
            why = f"variant {config.variant}" if name == "labels" else "vision frozen"
            raise UsageError(f"train_policy needs input {name} for {why}")
        if given is not None and name != "checkpoint":
            check_origin(given, inputs.one("dataset"), name)
    given_frames(inputs)
