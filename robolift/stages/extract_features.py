"""Measure the clips of one shard: sharpness, exposure, motion, hands, and what an image encoder sees."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from robolift.logging import progress
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
    """Registered extractors, one file each in robolift/clips/extractors. `hands_colour` stands in for `hands` on
    simulated videos: it is quick and needs no model."""
    encoder: str = ""
    """Address of a folder with CLIP, as transformers saves it, or of the file of EfficientNet-Lite0's weights; empty:
    `pixels`, the picture itself, tiny."""
    encoder_sha256: str = ""
    """Digest that the encoder must have, of its file or of the names and contents in its folder; empty: any."""
    hand_model: str = ""
    """Address of MediaPipe's hand_landmarker.task bundle; needed by `hands`."""
    decode_side: int = Field(default=240, ge=32)
    """Side of the pictures that features are measured on; blur depends on it, so it is part of the features'
    identity."""
    embedding_frames: int = Field(default=8, ge=1)
    """Frames of a clip that the encoder sees."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where the encoder computes."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        from robolift.clips import extractors  # noqa: PLC0415  (lists files; none of them is imported)

        if self.shard >= self.num_shards:
            raise ValueError(f"shard {self.shard} of num_shards {self.num_shards}: shards count from 0")
        if len(set(self.extractors)) < len(self.extractors):
            raise ValueError("an extractor stands twice in extractors")
        if unknown := sorted(set(self.extractors) - set(extractors.names())):
            raise ValueError(f"no extractor {', '.join(unknown)}; there are: {', '.join(extractors.names())}")
        if "hands" in self.extractors and not self.hand_model:
            raise ValueError(
                "extractor hands needs hand_model, the address of a hand_landmarker.task bundle; give one, or leave "
                "hands out, or choose hands_colour for simulated videos"
            )
        if self.encoder_sha256 and not self.encoder:
            raise ValueError("encoder_sha256 is given without encoder")
        return self


def identity(config: Config) -> dict[str, Any]:
    """Return the digests of the models that measure."""
    from robolift.data.models import model_digest  # noqa: PLC0415

    found = {}
    if "embedding" in config.extractors and config.encoder:
        found["encoder"] = config.encoder_sha256 or model_digest(config.encoder)
    if "hands" in config.extractors:
        found["hand_model"] = model_digest(config.hand_model)
    return found


def run(config: Config, inputs: Inputs, output: Output) -> Mapping[str, int]:
    """Write ``features``, ``frames`` and ``missing`` (.parquet) of the shard's clips, and ``features.json``."""
    from robolift.clips import extractors, feature_tables, measuring  # noqa: PLC0415  (OpenCV)
    from robolift.clips.encoders import open_encoder  # noqa: PLC0415
    from robolift.clips.extractor import Tools  # noqa: PLC0415
    from robolift.data.models import read_model  # noqa: PLC0415

    loaded = extractors.load(config.extractors)
    clips = measuring.read_clips(inputs.one("clips"), side=config.decode_side, embedding_frames=config.embedding_frames)
    encoder = None
    if "embedding" in config.extractors:
        encoder = open_encoder(config.encoder, expect_sha256=config.encoder_sha256, device=config.device)
    hand_model = read_model(config.hand_model) if "hands" in config.extractors else b""
    tools = Tools(encoder=encoder, hand_model=hand_model)
    mine = [clip for clip in clips if measuring.shard_of(clip.clip_id, config.num_shards) == config.shard]
    shown = progress(mine, total=len(mine), what="measuring clips", unit="clip")
    scalars = [name for extractor in loaded.values() for name in extractor.SCALARS]
    tables = feature_tables.build(measuring.measure(shown, loaded, tools, side=config.decode_side), scalars)
    feature_tables.write(output.path, tables)
    output.write_json(
        feature_tables.FACTS_FILE,
        {
            "extractors": {name: extractor.VERSION for name, extractor in loaded.items()},
            "fields": {field: name for name, extractor in loaded.items() for field in extractor.SCALARS},
            "encoder": encoder and {"kind": encoder.kind, "digest": encoder.digest, "width": encoder.width},
            "hand_model": hashlib.sha256(hand_model).hexdigest() if hand_model else None,
            "decode": {
                "side": config.decode_side,
                "fps": clips[0].fps,
                "fit": inputs.one("clips").config.get("fit"),
            },
        },
    )
    return {"clips": len(mine), "frames": tables[feature_tables.FRAMES].num_rows}
