"""Choose pairs of clips for people to compare: at random, again to measure consistency, or where a model is unsure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from robolift.manifest import Output
from robolift.schema import Kind
from robolift.stages.stage import Input, Inputs, StageConfig

INPUTS = {
    "clips": Input(kind=Kind.CLIPS),
    "features": Input(kind=Kind.FEATURES, optional=True),
    "model": Input(kind=Kind.REWARD_MODEL, optional=True),
}
OUTPUT = Kind.PAIRS


class Config(StageConfig):
    """How many pairs, and of which kind."""

    num_pairs: int = Field(default=300, ge=1)
    """Pairs, repeats and overlaps among them."""
    method: Literal["random", "active"] = "random"
    """`active`: those whose order the ensemble of a model disagrees about most; needs the inputs model and features."""
    repeat_fraction: float = Field(default=0.05, ge=0, le=0.5)
    """Share of pairs that stand twice, sides exchanged, to measure how consistent people are."""
    within_kind: bool = False
    """Whether both clips of a pair are of one kind (annotated, random)."""
    seed: int = Field(default=0, ge=0)
    """Decides pairs and sides."""


def run(config: Config, inputs: Inputs, output: Output) -> Mapping[str, int]:
    """Write ``pairs.parquet`` and ``pairs.csv``, which the labelling page reads."""
    raise NotImplementedError
