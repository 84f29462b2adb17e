"""Work out what a model will be asked about each episode, and what that costs, before it is asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from robolift import storage
from robolift.annotators.labeller import CAUSAL_PREFIX, HF, NOBODY, OPENAI, Labeller
from robolift.annotators.planning import (
    PLAN_FILE,
    PLAN_TABLE,
    check_episodes,
    check_outcomes,
    cost,
    plan_document,
    totals,
    write_plan,
)
from robolift.annotators.prompts import Prompt, load_prompt
from robolift.annotators.protocols import PROTOCOLS
from robolift.annotators.sampling import few_moments
from robolift.annotators.transports.models import model_digest
from robolift.data.dataset import DATASET_FILE, DatasetFacts
from robolift.errors import DataError, UsageError
from robolift.logging import get_logger
from robolift.manifest import Output
from robolift.schema import Kind
from robolift.stages.show import SECTION_FILE
from robolift.stages.stage import Input, Inputs, StageConfig

INPUTS = {"dataset": Input(kind=Kind.DATASET)}
OUTPUT = Kind.LABEL_PLAN


class Config(StageConfig):
    """Which model is asked, what, and with which pictures."""

    RUNTIME: ClassVar[frozenset[str]] = frozenset(
        {"endpoint", "input_price", "output_price", "min_calibration_episodes"}
    )

    model: str = ""
    """With `endpoint` the name under which the server knows the model; without, the address of a folder with its
    weights. Empty: no model is asked, and all labels come from people."""
    endpoint: str = ""
    """Base address of an OpenAI-compatible server, such as http://vllm:8000/v1. Empty: the model runs in the step."""
    protocol: Literal["logprob", "shuffled", "rubric", "pairwise", "head"] = "logprob"
    """`logprob`: how probable it calls the task done, after growing parts of the episode (TOPReward). `shuffled`:
    percent of progress of frames shown out of order (GVL). `rubric`: 1 to 5 for how it ended. `pairwise`: signed change
    between neighbouring frames, added up (VLAC). `head`: the model's own progress and success heads (Robometer)."""
    prompt: str = ""
    """Address of a prompt file instead of the protocol's own."""
    model_sha256: str = ""
    """Digest that the model's files must have, as a plan records it; empty: any."""
    cameras: tuple[str, ...] = ()
    """Cameras shown at each moment, in this order; empty: all."""
    sampling: Literal["whole", "causal_prefix"] = "whole"
    """`whole`: one look at the whole episode. `causal_prefix`: each moment is judged from the frames up to it, as
    `logprob` always does and `pairwise` can't."""
    max_frames: Annotated[int, Field(ge=2, le=64)] = 8
    """Moments of an episode that are shown at once."""
    num_prefixes: Annotated[int, Field(ge=2, le=128)] = 15
    """Growing parts of the episode that `logprob` and `causal_prefix` ask about."""
    image_side: Annotated[int, Field(ge=32, le=2048)] = 448
    """Longest side of a picture in pixels; larger ones are scaled down, the aspect is kept."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Numbers in which a model in the step computes."""
    seed: int = Field(default=0, ge=0)
    """Order in which `shuffled` shows frames."""
    min_calibration_episodes: int = Field(default=0, ge=0)
    """Episodes of each recorded outcome without which nobody is asked, since `collect_rewards` could not calibrate; 0:
    any number will do. In a pipeline it is that of `collect_rewards` where that calibrates."""
    input_price: float = Field(default=0.0, ge=0)
    """Price of a million input tokens, for the estimate in the log and of a dry run."""
    output_price: float = Field(default=0.0, ge=0)
    """Price of a million output tokens, for the same."""


def run(config: Config, inputs: Inputs, output: Output) -> Mapping[str, int]:
    """Write ``plan.parquet`` (an episode a row) and ``plan.json`` (the labeller, resolved, and totals)."""
    resolved = _resolve(config, inputs)
    _tell(config, resolved)
    write_plan(output.path / PLAN_TABLE, inputs.one("dataset"), resolved.labeller)
    output.write_json(PLAN_FILE, plan_document(resolved.labeller, resolved.prompt, resolved.totals))
    (output.path / SECTION_FILE).write_text(describe(resolved.labeller, resolved.totals), encoding="utf-8")
    return resolved.totals


def identity(config: Config) -> dict[str, Any]:
    """Return what else decides the plan: the transport, the model's content, the prompt's."""
    transport = _transport(config)
    prompt = _prompt(config)
    return {
        "transport": transport,
        "model": model_digest(config.model) if transport == HF else "",
        "prompt": prompt.sha256 if prompt else "",
    }


def preview(config: Config, inputs: Inputs) -> str:
    """Return what will be asked, and about what it takes, for a dry run."""
    resolved = _resolve(config, inputs)
    labeller, totals = resolved.labeller, resolved.totals
    if labeller.protocol == NOBODY:
        return f"no model is asked about the {totals['episodes']:,} episodes: model is empty"
    _tell(config, resolved)
    assert resolved.prompt is not None
    spent = cost(totals, config.input_price, config.output_price)
    lines = [
        _asked(labeller),
        *(f"{name:<10} {number:>15,}   {note}".rstrip() for name, number, note in _sizes(labeller, totals)),
        *([f"cost       {spent:>15,.2f}   estimate"] if spent else []),
        "",
        "asked in these words:",
        *(f"  {line}" for line in resolved.prompt.text.strip().splitlines()),
    ]
    return "\n".join(lines)


def describe(labeller: Labeller, totals: Mapping[str, int]) -> str:
    """Return the part of the step's page that says what will be asked, before any of it is.

    Prices are no part of what is planned, so they don't show in an output that is reused whatever they are.
    """
    if labeller.protocol == NOBODY:
        return "## No model is asked\n"
    rows = [f"| {name} | {number:,} | {note} |" for name, number, note in _sizes(labeller, totals)]
    return "\n".join(["## What will be asked", "", _asked(labeller), "", "| | | |", "|---|--:|---|", *rows]) + "\n"


def _asked(labeller: Labeller) -> str:
    return (
        f"{labeller.protocol} {labeller.protocol_version}, {labeller.sampling}: {labeller.model} "
        f"({'at a server' if labeller.transport == OPENAI else 'in the step'}) "
        f"sees up to {labeller.max_frames} moments of {', '.join(labeller.cameras)} at once"
    )


def _sizes(labeller: Labeller, totals: Mapping[str, int]) -> list[tuple[str, int, str]]:
    return [
        ("episodes", totals["episodes"], ""),
        ("requests", totals["requests"], ""),
        ("pictures", totals["pictures"], f"longest side {labeller.image_side} pixels or less"),
        ("tokens in", totals["input_tokens_estimate"], "estimate"),
        ("tokens out", totals["output_tokens_estimate"], "estimate"),
    ]


@dataclass(frozen=True, kw_only=True)
class _Resolved:
    labeller: Labeller
    prompt: Prompt | None
    totals: dict[str, int]


def _resolve(config: Config, inputs: Inputs) -> _Resolved:
    """Check everything that can be checked before a model is asked, and work out the totals.

    Raises:
        UsageError: If configuration, dataset and protocol don't fit together, or there is no such model.
        DataError: If episodes can't be asked about, or the model is not the one expected.
    """
    dataset = inputs.one("dataset")
    facts = DatasetFacts.from_dict(storage.read_json(dataset.file(DATASET_FILE)), folder=dataset.uri)
    prompt = _prompt(config)
    labeller = _labeller(config, facts, prompt)
    check_episodes(dataset, labeller)
    if prompt:
        check_outcomes(dataset, config.min_calibration_episodes)
    return _Resolved(labeller=labeller, prompt=prompt, totals=totals(dataset, facts, labeller, prompt))


def _labeller(config: Config, facts: DatasetFacts, prompt: Prompt | None) -> Labeller:
    transport = _transport(config)
    asked = prompt is not None
    return Labeller(
        protocol=config.protocol if asked else NOBODY,
        protocol_version=PROTOCOLS[config.protocol].VERSION if asked else "",
        transport=transport,
        model=config.model,
        model_digest=_model_digest(config) if transport == HF else "",
        prompt_sha256=prompt.sha256 if prompt else "",
        cameras=_cameras(config, facts) if asked else (),
        # Growing parts of the episode are what logprob asks about, however it is told to look.
        sampling=CAUSAL_PREFIX if config.protocol == "logprob" else config.sampling,
        max_frames=config.max_frames,
        num_prefixes=config.num_prefixes,
        image_side=config.image_side,
        dtype=config.dtype if transport == HF else "",
        seed=config.seed,
    )


def _transport(config: Config) -> str:
    if not config.model:
        if config.endpoint:
            raise UsageError("endpoint is given and model is empty; name the model under which the server knows it")
        return NOBODY
    return OPENAI if config.endpoint else HF


def _prompt(config: Config) -> Prompt | None:
    if not config.model:
        return None
    protocol = PROTOCOLS[config.protocol]
    if protocol.NEEDS_HEADS and config.endpoint:
        raise UsageError(
            f"protocol {config.protocol} reads a model's own heads, which no server gives out; leave endpoint empty "
            "and let model be the address of its folder"
        )
    if config.sampling == CAUSAL_PREFIX and not protocol.CAUSAL:
        raise UsageError(
            f"protocol {config.protocol} compares pairs of moments, so it can't judge one from the frames up to it; "
            "set sampling: whole"
        )
    if config.model_sha256 and config.endpoint:
        raise UsageError("model_sha256 is given, but the files of a server's model can't be seen; leave it out")
    return load_prompt(config.protocol, protocol.VERSION, config.prompt)


def _model_digest(config: Config) -> str:
    found = model_digest(config.model)
    if config.model_sha256 not in ("", found):
        raise DataError(
            f"the model's files have the digest {found}",
            where=config.model,
            expected=config.model_sha256,
            mend="restore the model, or set model_sha256 to the digest of this one",
        )
    return found


def _cameras(config: Config, facts: DatasetFacts) -> tuple[str, ...]:
    known = ", ".join(facts.cameras) or "none"
    if unknown := [camera for camera in config.cameras if camera not in facts.cameras]:
        raise UsageError(f"no camera {', '.join(unknown)}; the dataset has: {known}")
    if len(set(config.cameras)) < len(config.cameras):
        raise UsageError(f"cameras names one twice: {', '.join(config.cameras)}")
    if not facts.cameras:
        raise UsageError("the dataset has no camera, so there is nothing to show a model; leave model empty")
    return config.cameras or facts.cameras


def _tell(config: Config, resolved: _Resolved) -> None:
    log = get_logger("plan_labels")
    if warning := few_moments(resolved.labeller):
        log.warning(warning)
    spent = cost(resolved.totals, config.input_price, config.output_price)
    log.info("planned", **resolved.totals, **({"cost_estimate": round(spent, 2)} if spent else {}))
