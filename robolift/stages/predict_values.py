"""Predict the value of every frame of one shard of the episodes."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from robolift.manifest import Output
from robolift.schema import Kind
from robolift.stages.frames_input import given_frames
from robolift.stages.frames_input import input_identity as input_identity
from robolift.stages.stage import Input, Inputs, StageConfig

INPUTS = {
    "dataset": Input(kind=Kind.DATASET),
    "checkpoint": Input(kind=Kind.VALUE_CHECKPOINT),
    "frames": Input(kind=Kind.FRAMES, optional=True),
}
OUTPUT = Kind.VALUE_SHARD


class Config(StageConfig):
    """Which part of the dataset, and how much at a time."""

    RUNTIME: ClassVar[frozenset[str]] = frozenset({"decode_workers"})

    shard: int = Field(0, ge=0)
    """This shard, counted from 0."""
    num_shards: int = Field(1, ge=1)
    """Shards the episodes are cut into; an episode is never cut. Values do not depend on it."""
    batch_size: int = Field(64, ge=1)
    """Frames computed at a time."""
    lookahead: int = Field(50, ge=1)
    """Frames over which a two-frame model's `relative_advantage` is measured; other models have none."""
    step: int | None = Field(None, ge=1)
    """Step whose weights predict, one that train_value kept; by default those that training ended with."""
    save_features: bool = True
    """Whether to write the encoder's output of every frame, from which the policy learns without decoding video. A
    model with towers has patches instead, millions of numbers a frame; they are never written."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of towers, `bfloat16` several times faster on a GPU; a model without towers is always float32."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where to compute."""
    threads: int = Field(1, ge=1)
    """Threads of this process; more change the order of additions, and with it the last bits."""

    decode_workers: int = Field(0, ge=0)
    """Processes that decode video, beside the one that computes; 0 decodes in a thread of it. The number of cameras is
    a good one. More pay where videos have keyframes every few frames, as LeRobot's do, in multiples of the cameras.
    Values do not depend on it."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.shard >= self.num_shards:
            raise ValueError(f"shard {self.shard} of num_shards {self.num_shards}: shards count from 0")
        return self


def run(config: Config, inputs: Inputs, output: Output) -> dict[str, int]:
    """Write values.parquet for the shard's episodes, and features.parquet if a small encoder looks through cameras.

    ``value`` is the expected return of a distribution, the progress of a single-frame model, and for a two-frame model
    the progress since the episode's first frame. The last two predict no ``value_std``: it is 0.
    """
    from robolift.memory import return_large_blocks  # noqa: PLC0415

    return_large_blocks()

    from robolift.data.dataset import Dataset  # noqa: PLC0415
    from robolift.data.frame_cache import View, open_cache  # noqa: PLC0415
    from robolift.training.device import device_for, threads  # noqa: PLC0415  (torch takes seconds to import)
    from robolift.value_model.checkpoint import load, read  # noqa: PLC0415
    from robolift.value_model.predict import predict, shard_episodes  # noqa: PLC0415

    dataset = Dataset.open(inputs.one("dataset"))
    trained = inputs.one("checkpoint").uri
    checkpoint, cache, frames = read(trained, config.step), given_frames(inputs), None
    if cache is not None and checkpoint.cameras:
        view = View(cameras=checkpoint.cameras, size=checkpoint.image_size, padded=checkpoint.padded)
        frames = open_cache(cache, view, num_frames=dataset.num_frames)
    episodes = shard_episodes(dataset.starts, config.shard, config.num_shards)
    model, _ = load(trained, config.step)  # last: weights may take minutes
    with threads(config.threads):
        columns = predict(
            model.to(device_for(config.device)),
            checkpoint,
            dataset,
            episodes=episodes,
            batch_size=config.batch_size,
            lookahead=config.lookahead,
            folder=output.path,
            save_features=config.save_features,
            precision=config.precision,
            decode_workers=config.decode_workers,
            frames=frames,
        )
    output.write_table("values", columns)
    return {"episodes": len(episodes), "frames": len(columns["value"])}
