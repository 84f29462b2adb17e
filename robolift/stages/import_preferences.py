"""Take people's comparisons, from the labelling page's events or a CSV, and measure how far they can be trusted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from robolift.manifest import Output
from robolift.schema import Kind
from robolift.stages.stage import Input, Inputs, StageConfig

INPUTS = {
    "pairs": Input(kind=Kind.PAIRS, optional=True),
    "clips": Input(kind=Kind.CLIPS),
}
OUTPUT = Kind.PREFERENCES


class Config(StageConfig):
    """Where the comparisons lie, and what counts."""

    preferences_uri: str = Field(min_length=1)
    """Folder that the labelling page wrote to, or a CSV:
    pair_id,clip_a_id,clip_b_id,preference,timestamp,annotator_id."""
    duplicates: Literal["refuse", "last"] = "last"
    """What becomes of a pair that one annotator answered twice: the `last` answer counts (repeats are pairs of their
    own)."""
    min_annotator_consistency: float = Field(default=0.0, ge=0, le=1)
    """Annotators who agree with themselves on repeated pairs less often are left out, if they had at least five."""


def run(config: Config, inputs: Inputs, output: Output) -> Mapping[str, int]:
    """Write ``preferences.parquet`` and ``agreement.json``."""
    raise NotImplementedError
