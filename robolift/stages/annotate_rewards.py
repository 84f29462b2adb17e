"""Ask a model about the episodes of one shard, and keep every answer."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from robolift import schema
from robolift.annotators.answers import AnswerStore
from robolift.annotators.ask import Interview
from robolift.annotators.labeller import OPENAI, Labeller
from robolift.annotators.messages import Transport
from robolift.annotators.planning import PLAN_TABLE, load_of, read_plan
from robolift.annotators.prompts import Prompt
from robolift.annotators.sampling import few_moments
from robolift.annotators.shard import in_shard, write_shard
from robolift.annotators.transports.opening import open_transport
from robolift.data.dataset import Dataset
from robolift.errors import UsageError
from robolift.logging import get_logger
from robolift.manifest import Output
from robolift.schema import Kind
from robolift.stages.stage import Input, Inputs, StageConfig

INPUTS = {"dataset": Input(kind=Kind.DATASET), "plan": Input(kind=Kind.LABEL_PLAN)}
OUTPUT = Kind.REWARD_SHARD


class Config(StageConfig):
    """Which episodes, and how hard the model may be pressed."""

    RUNTIME: ClassVar[frozenset[str]] = frozenset(
        {"endpoint", "max_in_flight", "requests_per_minute", "timeout_s", "max_tries"}
    )

    shard: int = Field(0, ge=0)
    """This shard, counted from 0."""
    num_shards: int = Field(1, ge=1)
    """Shards the episodes are cut into; labels do not depend on it."""
    endpoint: str = ""
    """Base address of the server; needed where the plan was made for one. The key for it is taken from the environment
    variable ROBOLIFT_VLM_API_KEY."""
    max_in_flight: Annotated[int, Field(ge=1, le=256)] = 8
    """Questions a server is asked at the same time."""
    requests_per_minute: float = Field(default=0.0, ge=0)
    """Most questions a minute and shard; 0: no limit."""
    timeout_s: float = Field(default=300.0, gt=0)
    """Longest wait for one answer, in seconds."""
    max_tries: Annotated[int, Field(ge=1, le=20)] = 6
    """Tries of one question that a server refuses with 429 or 5xx, cuts off or does not answer in time."""
    batch_size: Annotated[int, Field(ge=1)] = 4
    """Questions that a model in the step computes at once."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where a model in the step computes."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.shard >= self.num_shards:
            raise ValueError(f"shard {self.shard} of num_shards {self.num_shards}: shards count from 0")
        return self


def run(config: Config, inputs: Inputs, output: Output) -> Mapping[str, int]:
    """Write ``anchors.parquet``, ``answers.parquet`` and ``errors.json`` of the shard's episodes.

    Answers are kept below ``answers`` of the output root as they come, and nothing is asked twice: not after a kill,
    and not about the episodes that an appended dataset shares with the one before.
    """
    labeller, prompt = _plan(config, inputs)
    dataset = Dataset.open(inputs.one("dataset"))
    episodes = [i for i in range(dataset.num_episodes) if in_shard(i, config.shard, config.num_shards)]
    if prompt is None:
        return {**write_shard(output.path, []), "episodes": len(episodes)}
    if warning := few_moments(labeller):
        get_logger("annotate_rewards").warning(warning)
    with closing(_transport(config, labeller)) as transport:
        interview = Interview(
            dataset=dataset,
            labeller=labeller,
            prompt=prompt,
            transport=transport,
            store=AnswerStore(output.plan.root),
        )
        counts = write_shard(output.path, interview.verdicts(episodes))
    output.metrics |= counts
    return counts


def preview(config: Config, inputs: Inputs) -> str:
    """Return what will be asked about the shard's episodes, for a dry run."""
    labeller, prompt = _plan(config, inputs)
    table = schema.read_parquet(inputs.one("plan").file(PLAN_TABLE))
    lengths = [
        row["length"] for row in table.to_pylist() if in_shard(row["episode_index"], config.shard, config.num_shards)
    ]
    if prompt is None:
        return f"no model is asked about the {len(lengths):,} episodes of the shard"
    loads = [load_of(labeller, length) for length in lengths]
    requests, pictures = sum(load.requests for load in loads), sum(load.pictures for load in loads)
    return (
        f"{labeller.model} is asked {requests:,} questions with {pictures:,} pictures about {len(lengths):,} episodes, "
        "less what it answered before"
    )


def _plan(config: Config, inputs: Inputs) -> tuple[Labeller, Prompt | None]:
    """Read the plan and check that it fits.

    Raises:
        UsageError: If it was made for another dataset, or the way to its model is missing.
        DataError: If it is damaged.
    """
    dataset, plan = inputs.one("dataset"), inputs.one("plan")
    planned = [parent.digest for parent in plan.inputs["dataset"]]
    if planned != [dataset.digest]:
        raise UsageError(
            f"the plan {plan.uri} was made for the dataset {', '.join(planned)}, and this one is {dataset.digest}; "
            "run plan_labels on it"
        )
    labeller, prompt = read_plan(plan)
    if labeller.transport == OPENAI and not config.endpoint:
        raise UsageError(
            f"the plan asks {labeller.model} at a server, and endpoint is empty; set it to the server's base address"
        )
    if labeller.transport != OPENAI and config.endpoint:
        raise UsageError(
            "endpoint is given, and the plan was made without one; leave it out here, or set it in plan_labels too"
        )
    return labeller, prompt


def _transport(config: Config, labeller: Labeller) -> Transport:
    return open_transport(
        transport=labeller.transport,
        model=labeller.model,
        endpoint=config.endpoint,
        workers=config.max_in_flight,
        requests_per_minute=config.requests_per_minute,
        timeout_s=config.timeout_s,
        max_tries=config.max_tries,
        dtype=labeller.dtype,
        device=config.device,
        batch_size=config.batch_size,
        model_sha256=labeller.model_digest,
    )
