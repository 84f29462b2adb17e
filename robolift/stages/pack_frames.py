"""Decode a dataset's videos once, into a frame cache that training and prediction read their pictures from."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, PositiveInt, model_validator

from robolift.data.cores import num_cores
from robolift.manifest import Output
from robolift.schema import Kind
from robolift.stages.stage import Input, Inputs, StageConfig

INPUTS = {"dataset": Input(kind=Kind.DATASET)}
OUTPUT = Kind.FRAMES
SHARD_MB = {"raw": 256.0, "jpeg": 64.0, "png": 64.0}
QUANTIZER = 3


class Config(StageConfig):
    """Which pictures are packed, and as what."""

    RUNTIME: ClassVar[frozenset[str]] = frozenset({"num_workers"})

    cameras: list[str] | None = None
    """Cameras, in this order; all of the dataset's by default. Of an empty list nothing is packed."""
    size: tuple[PositiveInt, PositiveInt] = (224, 224)
    """Height and width of the pictures, pixels."""
    padded: bool = False
    """Whether pictures keep their shape and black fills the rest, instead of being stretched."""
    format: Literal["raw", "png", "jpeg", "none"] = "raw"
    """What pictures lie there as. `raw`: the pixels; results are what they are without a cache. `png`: the same pixels
    in about two thirds of the bytes, slower to read. `jpeg`: a twelfth of the bytes, fewer than LeRobot's AV1 takes,
    and no longer quite the same pixels: for recordings whose pixels no disk holds. `none`: nothing is packed, and who
    would look at the cache decodes as without one; this is how a run leaves it out."""
    quantizer: int = Field(QUANTIZER, ge=1, le=31)
    """JPEG's, of FFmpeg's scale, from 1, the best, to 31, the smallest."""
    shard_mb: float | None = Field(None, ge=0.001)
    """About how large a file of pictures is, megabytes; null: 256 of raw, else 64. Whole episodes, unless one is larger
    than two such files."""
    num_workers: int | None = Field(None, ge=1)
    """Processes that decode; by default one a core."""

    @model_validator(mode="after")
    def _is_told_of_jpeg_alone(self) -> Config:
        """Refuse what would make the same bytes a second time, under another name."""
        if self.quantizer != QUANTIZER and self.format in ("raw", "png"):
            raise ValueError(f"quantizer is {self.quantizer}, and format {self.format} has none; set format: jpeg")
        return self


def run(config: Config, inputs: Inputs, output: Output) -> dict[str, int]:
    """Write shards, their index and frames.json; a killed run goes on after the last shard it finished."""
    from robolift.data.dataset import Dataset  # noqa: PLC0415  (PyAV takes a while to import)
    from robolift.data.frame_cache import View  # noqa: PLC0415
    from robolift.data.frame_coding import Coding  # noqa: PLC0415
    from robolift.data.frame_packing import Packing, pack  # noqa: PLC0415

    given = inputs.one("dataset")
    if config.format == "none":
        cameras, coding = [], Coding()
    else:
        cameras = list(Dataset.open(given).cameras) if config.cameras is None else config.cameras
        coding = Coding(format=config.format, quantizer=config.quantizer)
    packing = Packing(
        dataset_uri=given.uri,
        view=View(cameras=tuple(cameras), size=config.size, padded=config.padded),
        coding=coding,
        shard_bytes=int((config.shard_mb or SHARD_MB[coding.format]) * 1_000_000),
        folder=output.path,
    )
    workers = config.num_workers or num_cores()
    facts = pack(packing, work_uri=output.plan.work_uri, num_workers=workers)
    return {
        "frames": facts.num_frames,
        "cameras": len(cameras),
        "shards": len(facts.shards),
        "bytes": sum(size for _, size in facts.shards),
    }
