"""Measure the clips of one shard: sharpness, exposure, motion, hands, and what an image encoder sees."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from robolift.manifest import Output
from robolift.schema import Kind
from robolift.stages.stage import Input, Inputs, StageConfig

INPUTS = {
    "clips": Input(kind=Kind.CLIPS),
}
OUTPUT = Kind.FEATURE_SHARD


class Config(StageConfig):
    """Which features, by which encoder."""

    shard: int = Field(0, ge=0)
    """This shard, counted from 0."""
    num_shards: int = Field(1, ge=1)
    """Shards the clips are cut into; features do not depend on it."""
    extractors: tuple[str, ...] = ("blur", "exposure", "motion", "hands", "embedding")
    """Registered extractors, one file each in robolift/clips/extractors."""
    encoder: str = ""
    """Address of a folder with an image encoder (CLIP by transformers' classes, or EfficientNet-Lite0); empty:
    `pixels`, the picture itself, tiny."""
    encoder_sha256: str = ""
    """Digest that the encoder's files must have; empty: any."""
    hand_model: str = ""
    """Address of MediaPipe's hand_landmarker.task bundle; needed by `hands`."""
    decode_side: int = Field(default=240, ge=32)
    """Side of the pictures that features are measured on; blur depends on it, so it is part of the features'
    identity."""
    embedding_frames: int = Field(default=8, ge=1)
    """Frames of a clip that the encoder sees."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where the encoder computes."""


def run(config: Config, inputs: Inputs, output: Output) -> Mapping[str, int]:
    """Write ``features.parquet``, ``frames.parquet`` and ``features.json`` of the shard's clips."""
    raise NotImplementedError
