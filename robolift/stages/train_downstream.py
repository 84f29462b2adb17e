"""Train a small policy by behaviour cloning on subsets of the clips, one shard of the subsets."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from pydantic import Field

from robolift import schema
from robolift.clips import downstream
from robolift.clips.inputs import Clips, Features
from robolift.clips.split import hold_out
from robolift.clips.validation import read_scores
from robolift.errors import UsageError
from robolift.manifest import Output
from robolift.schema import Kind
from robolift.stages.stage import Input, Inputs, StageConfig

INPUTS = {"features": Input(kind=Kind.FEATURES), "scores": Input(kind=Kind.SCORES), "clips": Input(kind=Kind.CLIPS)}
OUTPUT = Kind.DOWNSTREAM
TABLE = pa.schema(
    [
        pa.field("subset", pa.int32(), nullable=False),
        pa.field("group", pa.string(), nullable=False),
        pa.field("seed", pa.int32(), nullable=False),
        pa.field("mean_score", pa.float64()),
        pa.field("m", pa.float64(), nullable=False),
        pa.field("clips", pa.list_(pa.string()), nullable=False),
    ]
)


class Config(StageConfig):
    """Subsets, and the policy."""

    shard: int = Field(0, ge=0)
    """This shard, counted from 0."""
    num_shards: int = Field(1, ge=1)
    """Shards the subsets are cut into; results do not depend on it."""
    num_subsets: int = Field(default=60, ge=10)
    """Subsets stratified by score, K; a reward can't pass with less than 50."""
    num_random: int = Field(default=20, ge=3)
    """Random subsets of the same size: the baseline that dM is measured from."""
    subset_size: int = Field(default=24, ge=2)
    """Clips in a subset."""
    num_seeds: int = Field(default=3, ge=1)
    """Trainings a subset."""
    held_out: float = Field(default=0.25, gt=0, lt=1)
    """Share of participants (of videos, where a participant is not known) whose clips are the fixed test; they are in
    no subset."""
    steps: int = Field(default=100, ge=1)
    """Steps of a training, the same for all."""
    horizon_s: float = Field(default=0.5, gt=0)
    """How far ahead the policy predicts the hand's displacement, or the mean flow where no hand is seen."""
    seed: int = Field(default=0, ge=0)
    """Decides subsets and starts."""


def run(config: Config, inputs: Inputs, output: Output) -> Mapping[str, int]:
    """Write ``downstream.parquet``: M(S) = - loss on the fixed held-out clips, for each subset and seed."""
    if config.shard >= config.num_shards:
        raise UsageError(f"train_downstream.shard is {config.shard}; expected 0 to {config.num_shards - 1}")
    clips, features = Clips.open(inputs.one("clips")), inputs.one("features")
    Features.open(features).check_clips(clips)
    scores = read_scores(inputs.one("scores"), clips.clip_id)
    by, groups = clips.widest_groups()
    held = hold_out(groups, config.held_out, config.seed)
    subsets = downstream.draw_subsets(
        scores,
        np.flatnonzero(~held),
        num_subsets=config.num_subsets,
        num_random=config.num_random,
        size=config.subset_size,
        seed=config.seed,
    )
    uri = features.file("frames.parquet")
    samples = downstream.read_samples(schema.read_parquet(uri), clips.clip_id, horizon_s=config.horizon_s, where=uri)
    task = downstream.Task.of(samples, held)
    rows = [
        {
            "subset": number,
            "group": subset.group,
            "seed": seed,
            "mean_score": float(scores[subset.clips].mean()),
            "m": downstream.measure(task, subset.clips, steps=config.steps, seed=config.seed * 1000 + seed),
            "clips": [clips.clip_id[row] for row in subset.clips],
        }
        for number, subset in enumerate(subsets)
        if number % config.num_shards == config.shard
        for seed in range(config.num_seeds)
    ]
    schema.write_table(output.path / "downstream.parquet", pa.Table.from_pylist(rows, schema=TABLE))
    output.metrics.update({**downstream.describe(samples, task), "split_by": by})
    return {
        "subsets": len({row["subset"] for row in rows}),
        "trainings": len(rows),
        "pool_clips": int((~held).sum()),
        "test_clips": int(held.sum()),
    }
