"""Put a labeller's shards together: progress and success of every frame, calibrated if asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from robolift.manifest import Output
from robolift.schema import Kind
from robolift.stages.stage import Input, Inputs, StageConfig

INPUTS = {
    "shards": Input(kind=Kind.REWARD_SHARD, many=True),
    "plan": Input(kind=Kind.LABEL_PLAN),
    "dataset": Input(kind=Kind.DATASET),
}
OUTPUT = Kind.REWARDS


class Config(StageConfig):
    """How much must be labelled, and how answers become progress."""

    min_coverage: float = Field(default=1.0, ge=0, le=1)
    """Smallest share of the episodes that must have labels."""
    calibration: Literal["none", "isotonic"] = "none"
    """`isotonic`: a rising map from the model's score to success, fitted on the ends of episodes of known outcome and
    the beginnings of all; for `logprob` and `rubric`."""
    min_calibration_episodes: int = Field(default=10, ge=2)
    """Episodes of each outcome that `calibration` needs."""


def run(config: Config, inputs: Inputs, output: Output) -> Mapping[str, int]:
    """Write ``rewards.parquet`` (a row for every frame), ``anchors.parquet`` and ``errors.json``."""
    raise NotImplementedError
