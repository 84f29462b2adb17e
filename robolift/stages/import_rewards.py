"""Take the progress that a reward model of LeRobot wrote beside a dataset as rewards of the model's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from robolift import schema
from robolift.data.content import sha256
from robolift.data.dataset import Dataset
from robolift.data.lerobot_rewards import read_rewards
from robolift.errors import DataError
from robolift.manifest import Output
from robolift.schema import Kind
from robolift.stages.stage import Input, Inputs, StageConfig

INPUTS = {"dataset": Input(kind=Kind.DATASET)}
OUTPUT = Kind.REWARDS


class Config(StageConfig):
    """Where LeRobot's file lies, and what it may lack."""

    rewards_uri: str = Field(min_length=1)
    """File at any address, such as `sarm_progress.parquet`, `robometer_progress.parquet` or
    `topreward_progress.parquet` (LeRobot's names). TOPReward stretches each episode to [0, 1], failures too: see what
    `label_quality` says of it."""
    head: Literal["sparse", "dense"] = "sparse"
    """Column `progress_sparse`, which all of them write, or `progress_dense` of SARM."""
    allow_partial: bool = False
    """Take episodes that the file lacks, and frames without a number, as not labelled. Else they are refused."""


def identity(config: Config) -> dict[str, Any]:
    """Return the digest of the file, so that another content is another output."""
    return {"rewards": sha256(config.rewards_uri)}


def run(config: Config, inputs: Inputs, output: Output) -> Mapping[str, int]:
    """Write ``rewards.parquet`` (a row for every frame) and ``labeller.json``, what the file says of its model."""
    dataset = Dataset.open(inputs.one("dataset"))
    found = read_rewards(config.rewards_uri, dataset, head=config.head, allow_partial=config.allow_partial)
    known = ~np.isnan(found.progress)
    if not known.any():
        raise DataError(
            f"progress_{config.head} is missing in all frames",
            where=config.rewards_uri,
            expected="a number in some frame at least",
            mend="name the other head, or let the labeller run first",
        )
    count = dataset.num_frames
    keys = dataset.keys(0, count)
    nothing = {name: pa.nulls(count, schema.REWARDS.field(name).type) for name in ("success_prob", "reward", "stage")}
    output.write_table(
        "rewards",
        {
            **keys,
            **nothing,
            "progress": pa.array(found.progress, mask=~known),
            "tri": pa.nulls(count, pa.int8()),
            # The file does not tell the frames that were asked about from those between them.
            "anchor": known,
            "confidence": pa.nulls(count, pa.float32()),
            "source": np.where(known, "vlm", "none"),
        },
    )
    output.write_json("labeller.json", {"protocol": "lerobot", "head": config.head, "stated": found.metadata})
    return {
        "episodes": dataset.num_episodes,
        "frames": count,
        "labelled": len(np.unique(keys[schema.EPISODE_INDEX][known])),
        "labelled_frames": int(known.sum()),
    }
