"""Put the shards of features together: one table that shows nothing of how it was cut."""

from __future__ import annotations

from collections.abc import Mapping

from robolift.manifest import Output
from robolift.schema import Kind
from robolift.stages.stage import Input, Inputs, StageConfig

INPUTS = {"shards": Input(kind=Kind.FEATURE_SHARD, many=True), "clips": Input(kind=Kind.CLIPS)}
OUTPUT = Kind.FEATURES


class Config(StageConfig):
    """Nothing to set."""


def run(config: Config, inputs: Inputs, output: Output) -> Mapping[str, int]:
    """Check that the shards are one measurement of all clips and write them as one."""
    raise NotImplementedError
