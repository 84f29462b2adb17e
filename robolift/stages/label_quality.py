"""Measure what reward labels are worth before anything is trained on them."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from robolift.manifest import Output
from robolift.schema import Kind
from robolift.stages.stage import Input, Inputs, StageConfig

INPUTS = {
    "dataset": Input(kind=Kind.DATASET),
    "automatic": Input(kind=Kind.REWARDS),
    "reviews": Input(kind=Kind.REWARDS),
}
OUTPUT = Kind.QUALITY


class Config(StageConfig):
    """What labels must reach to pass."""

    min_coverage: float = Field(default=0.0, ge=0, le=1)
    """Smallest share of frames with a label, the model's and people's together."""
    min_success_auroc: float = Field(default=0.0, ge=0, le=1)
    """Smallest probability that a success's end scores above a failure's; not asked where an outcome is missing."""
    min_failure_gap: float = Field(default=-1.0, ge=-1, le=1)
    """Smallest difference between the mean final progress of successes and of failures."""
    max_disagreement: float = Field(default=1.0, ge=0, le=1)
    """Largest share of people's frames that the model's progress contradicts."""
    min_agreement: float = Field(default=-1.0, ge=-1, le=1)
    """Smallest Krippendorff's alpha between people; not asked where nobody labelled twice."""
    max_constant: float = Field(default=0.5, ge=0, le=1)
    """Largest share of episodes whose progress never changes."""


def run(config: Config, inputs: Inputs, output: Output) -> Mapping[str, int]:
    """Write ``quality.json``: each measure beside what a clock (t / T) reaches, and whether the labels pass."""
    raise NotImplementedError
