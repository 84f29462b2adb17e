"""Predict the value of every frame of one shard of the episodes."""

from __future__ import annotations

from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

from robolift import schema
from robolift.manifest import Output
from robolift.schema import Kind
from robolift.stages.stage import Input, Inputs, StageConfig

INPUTS = {"dataset": Input(kind=Kind.DATASET), "checkpoint": Input(kind=Kind.VALUE_CHECKPOINT)}
OUTPUT = Kind.VALUE_SHARD


class Config(StageConfig):
    """Which part of the dataset, and how much at a time."""

    shard: int = Field(0, ge=0)
    """This shard, counted from 0."""
    num_shards: int = Field(1, ge=1)
    """Shards the episodes are cut into; an episode is never cut. Values do not depend on it."""
    batch_size: int = Field(64, ge=1)
    """Frames computed at a time."""
    save_features: bool = True
    """Whether to write the encoder's output of every frame, from which the policy learns without decoding video."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where to compute."""
    threads: int = Field(1, ge=1)
    """Threads of this process; more change the order of additions, and with it the last bits."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.shard >= self.num_shards:
            raise ValueError(f"shard {self.shard} of num_shards {self.num_shards}: shards count from 0")
        return self


def run(config: Config, inputs: Inputs, output: Output) -> dict[str, int]:
    """Write values.parquet, and features.parquet when the model has cameras, for the shard's episodes."""
    from robolift.data.dataset import Dataset  # noqa: PLC0415
    from robolift.value_model.checkpoint import load  # noqa: PLC0415  (torch takes seconds to import)
    from robolift.value_model.predict import predict, shard_episodes  # noqa: PLC0415
    from robolift.value_model.train import device_for, threads  # noqa: PLC0415

    dataset = Dataset.open(inputs.one("dataset"))
    model, checkpoint = load(inputs.one("checkpoint").uri)
    episodes = shard_episodes(dataset.starts, config.shard, config.num_shards)
    with threads(config.threads):
        columns = predict(
            model.to(device_for(config.device)),
            checkpoint,
            dataset,
            episodes=episodes,
            batch_size=config.batch_size,
            folder=output.path,
            save_features=config.save_features,
        )
    unknown = np.full(len(columns["value"]), None, dtype=object)
    output.write_table("values", schema.as_table("values", {**columns, "relative_advantage": unknown}))
    return {"episodes": len(episodes), "frames": len(columns["value"])}
