"""Work out what a model will be asked about each episode, and what that costs, before it is asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from robolift.manifest import Output
from robolift.schema import Kind
from robolift.stages.stage import Input, Inputs, StageConfig

INPUTS = {"dataset": Input(kind=Kind.DATASET)}
OUTPUT = Kind.LABEL_PLAN


class Config(StageConfig):
    """Which model is asked, what, and with which pictures."""

    RUNTIME: ClassVar[frozenset[str]] = frozenset({"endpoint", "input_price", "output_price"})

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
    """`whole`: one look at the whole episode. `causal_prefix`: each moment is judged from the frames up to it."""
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
    input_price: float = Field(default=0.0, ge=0)
    """Price of a million input tokens, for the estimate."""
    output_price: float = Field(default=0.0, ge=0)
    """Price of a million output tokens, for the estimate."""


def run(config: Config, inputs: Inputs, output: Output) -> Mapping[str, int]:
    """Write ``plan.parquet`` (an episode a row) and ``plan.json`` (the labeller, resolved, and totals)."""
    raise NotImplementedError


def identity(config: Config) -> dict[str, Any]:
    """Return what else decides the plan: the transport, the model's content, the prompt's."""
    raise NotImplementedError
