"""Take what people marked on the labelling page as rewards: their events, folded into one table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from robolift.manifest import Output
from robolift.schema import Kind
from robolift.stages.stage import Input, Inputs, StageConfig

INPUTS = {"dataset": Input(kind=Kind.DATASET)}
OUTPUT = Kind.REWARDS


class Config(StageConfig):
    """Where people's events lie, and what counts."""

    reviews_uri: str = ""
    """Folder that the labelling page wrote to (`robolift review --labels`). Empty: nobody labelled yet."""
    min_annotators: int = Field(default=1, ge=1)
    """People who must have completed an episode before it counts."""
    min_gold_accuracy: float = Field(default=0.0, ge=0, le=1)
    """Annotators whose answers to gold items are right less often are left out."""


def run(config: Config, inputs: Inputs, output: Output) -> Mapping[str, int]:
    """Write ``rewards.parquet`` (a row for every frame), ``reviews.json`` and ``preferences.csv``."""
    raise NotImplementedError


def identity(config: Config) -> dict[str, Any]:
    """Return what else decides the result: the events."""
    raise NotImplementedError
