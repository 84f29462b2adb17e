"""Lay people's labels over the model's and derive the reward: one table that says of each row who said it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from robolift.manifest import Output
from robolift.schema import Kind
from robolift.stages.stage import Input, Inputs, StageConfig

INPUTS = {
    "dataset": Input(kind=Kind.DATASET),
    "automatic": Input(kind=Kind.REWARDS),
    "reviews": Input(kind=Kind.REWARDS),
    "quality": Input(kind=Kind.QUALITY, optional=True),
}
OUTPUT = Kind.REWARDS


class Config(StageConfig):
    """Whose word counts, and what the reward is."""

    reward: Literal["difference", "sparse_success", "level", "tri", "human"] = "difference"
    """`difference`: progress gained by the next frame, 0 in the last. `sparse_success`: 1 in the last frame of a
    success, else 0. `level`: progress itself. `tri`: people's -1, 0, +1. `human`: the reward that people marked."""
    success_threshold: float = Field(default=0.5, ge=0, le=1)
    """Success probability from which `sparse_success` counts an episode as one."""
    use_outcome: bool = True
    """Whether a recorded outcome counts where neither a person nor the model said how an episode ended."""
    quality_gate: bool = True
    """Whether labels that `label_quality` did not pass are refused."""


def run(config: Config, inputs: Inputs, output: Output) -> Mapping[str, int]:
    """Write ``rewards.parquet``, a row for every frame."""
    raise NotImplementedError
