"""Ask a model about the episodes of one shard, and keep every answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

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
    """Write ``anchors.parquet``, ``answers.parquet`` and ``errors.json`` of the shard's episodes."""
    raise NotImplementedError
