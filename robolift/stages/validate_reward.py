"""Measure whether scores foretell how useful clips are to a policy, beside controls, with intervals."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from robolift.manifest import Output
from robolift.schema import Kind
from robolift.stages.stage import Input, Inputs, StageConfig

INPUTS = {
    "scores": Input(kind=Kind.SCORES),
    "downstream": Input(kind=Kind.DOWNSTREAM, many=True),
    "features": Input(kind=Kind.FEATURES),
    "model": Input(kind=Kind.REWARD_MODEL, optional=True),
    "controls": Input(kind=Kind.SCORES, many=True, optional=True),
    "ablations": Input(kind=Kind.SCORES, many=True, optional=True),
}
OUTPUT = Kind.VALIDATION


class Config(StageConfig):
    """What the reward must reach."""

    rho_min: float = Field(default=0.5, ge=-1, le=1)
    """Smallest correlation of a subset's mean score with dM."""
    drop_min: float = Field(default=0.1, ge=0, le=2)
    """Smallest drop of the correlation that an ablation is expected to make."""
    bootstrap: int = Field(default=2000, ge=100)
    """Bootstrap samples over subsets, the same for all scores that are compared."""
    confidence: float = Field(default=0.95, gt=0, lt=1)
    """Of the intervals."""
    gate: bool = False
    """Whether a reward that did not pass ends the run with an error after the result is published."""
    seed: int = Field(default=0, ge=0)
    """Of the bootstrap."""


def run(config: Config, inputs: Inputs, output: Output) -> Mapping[str, int]:
    """Write ``validation.json``."""
    raise NotImplementedError
