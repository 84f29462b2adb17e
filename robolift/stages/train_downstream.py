"""Train a small policy by behaviour cloning on subsets of the clips, one shard of the subsets."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from robolift.manifest import Output
from robolift.schema import Kind
from robolift.stages.stage import Input, Inputs, StageConfig

INPUTS = {"features": Input(kind=Kind.FEATURES), "scores": Input(kind=Kind.SCORES), "clips": Input(kind=Kind.CLIPS)}
OUTPUT = Kind.DOWNSTREAM


class Config(StageConfig):
    """Subsets, and the policy."""

    shard: int = Field(0, ge=0)
    """This shard, counted from 0."""
    num_shards: int = Field(1, ge=1)
    """Shards the subsets are cut into; results do not depend on it."""
    num_subsets: int = Field(default=60, ge=10)
    """Subsets stratified by score, K."""
    num_random: int = Field(default=20, ge=3)
    """Random subsets of the same size: the baseline that dM is measured from."""
    subset_size: int = Field(default=24, ge=2)
    """Clips in a subset."""
    num_seeds: int = Field(default=3, ge=1)
    """Trainings a subset."""
    held_out: float = Field(default=0.25, gt=0, lt=1)
    """Share of participants or videos whose clips are the fixed test; they are in no subset."""
    steps: int = Field(default=300, ge=1)
    """Steps of a training, the same for all."""
    horizon_s: float = Field(default=0.5, gt=0)
    """How far ahead the policy predicts the hand's displacement, or the mean flow where no hand is seen."""
    seed: int = Field(default=0, ge=0)
    """Decides subsets and starts."""


def run(config: Config, inputs: Inputs, output: Output) -> Mapping[str, int]:
    """Write ``downstream.parquet``: M(S) = - loss on the fixed held-out clips, for each subset and seed."""
    raise NotImplementedError
