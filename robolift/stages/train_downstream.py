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
    """Subsets stratified by score, K, no clip in two of them; a reward can't pass with less than 50."""
    num_random: int = Field(default=20, ge=3)
    """Random subsets of the same size: the baseline that dM is measured from."""
    subset_size: int = Field(default=0, ge=0)
    """Clips in a subset; 0: as many as `num_subsets` separate ones leave room for."""
    num_seeds: int = Field(default=3, ge=1)
    """Trainings a subset, each with a hidden layer of its own."""
    held_out: float = Field(default=0.25, gt=0, lt=1)
    """Share of participants (of videos, where a participant is not known) whose clips are the fixed test; they are in
    no subset."""
    components: int = Field(default=8, ge=0)
    """Principal components of the frames' embeddings that the policy sees."""
    hidden: int = Field(default=32, ge=1)
    """Units of the policy's hidden layer, which stays as it was drawn."""
    penalty: float = Field(default=0.0, ge=0)
    """Of the squared weights of the policy's output layer, the same for all subsets; 0: the one with which random
    subsets of the pool teach most about the pool's other clips."""
    horizon_s: float = Field(default=0.5, gt=0)
    """How far ahead the policy predicts the hand's displacement, or the mean flow where no hand is seen."""
    seed: int = Field(default=0, ge=0)
    """Decides held-out participants, subsets and hidden layers."""


def run(config: Config, inputs: Inputs, output: Output) -> Mapping[str, int]:
    """Write ``downstream.parquet``: M(S) = - loss on the fixed held-out clips, for each subset and seed."""
    if config.shard >= config.num_shards:
        raise UsageError(f"train_downstream.shard is {config.shard}; expected 0 to {config.num_shards - 1}")
    clips, features = Clips.open(inputs.one("clips")), inputs.one("features")
    Features.open(features).check_clips(clips)
    scores = read_scores(inputs.one("scores"), clips.clip_id)
    by, groups = clips.widest_groups()
    held = hold_out(groups, config.held_out, config.seed)
    pool = np.flatnonzero(~held)
    size = downstream.subset_size(len(pool), num_subsets=config.num_subsets, size=config.subset_size)
    subsets = downstream.draw_subsets(
        scores, pool, num_subsets=config.num_subsets, num_random=config.num_random, size=size, seed=config.seed
    )
    uri = features.file("frames.parquet")
    samples = downstream.read_samples(schema.read_parquet(uri), clips.clip_id, horizon_s=config.horizon_s, where=uri)
    task = downstream.Task.of(samples, held, components=config.components)
    hidden = [
        downstream.hidden_layer(task.inputs, units=config.hidden, seed=config.seed * 1000 + seed)
        for seed in range(config.num_seeds)
    ]
    penalty = config.penalty or downstream.choose_penalty(task, hidden, pool, size=size, seed=config.seed)
    rows = [
        {
            "subset": number,
            "group": subset.group,
            "seed": seed,
            "mean_score": float(scores[subset.clips].mean()),
            "m": downstream.measure(task, hidden[seed], subset.clips, penalty=penalty),
            "clips": [clips.clip_id[row] for row in subset.clips],
        }
        for number, subset in enumerate(subsets)
        if number % config.num_shards == config.shard
        for seed in range(config.num_seeds)
    ]
    schema.write_table(output.path / "downstream.parquet", pa.Table.from_pylist(rows, schema=TABLE))
    described = downstream.describe(samples, task)
    output.metrics.update({**described, "subset_size": size, "penalty": penalty, "split_by": by})
    return {
        "subsets": len({row["subset"] for row in rows}),
        "trainings": len(rows),
        "pool_clips": len(pool),
        "test_clips": int(held.sum()),
    }
