"""Give every clip a score: by a reward model, by the hand-made composite, or by a control."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from robolift.manifest import Output
from robolift.schema import Kind
from robolift.stages.stage import Input, Inputs, StageConfig

INPUTS = {
    "features": Input(kind=Kind.FEATURES),
    "model": Input(kind=Kind.REWARD_MODEL, optional=True),
}
OUTPUT = Kind.SCORES


class Config(StageConfig):
    """What scores."""

    method: Literal["model", "composite", "motion", "random"] = "model"
    """`model`: the input's. `composite`: a weighted sum of clipped features. `motion`: motion_var alone. `random`: a
    number drawn for the clip."""
    composite: Literal["prototype", "zscore"] = "zscore"
    """`prototype`: 0.2 each of min(blur/1000, 1), min(exposure/8, 1), min(motion/10, 1), hands, max(1 - jerk/5, 0).
    `zscore`: `weights` times standardized features."""
    weights: dict[str, float] = Field(default={"blur": 0.25, "exposure": 0.25, "motion_var": 0.25, "hands": 0.25})
    """Of `composite: zscore`."""
    seed: int = Field(default=0, ge=0)
    """Of `random`."""


def run(config: Config, inputs: Inputs, output: Output) -> Mapping[str, int]:
    """Write ``scores.parquet``."""
    raise NotImplementedError
