"""Give every clip a score: by a reward model, by the hand-made composite, or by a control."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from robolift import schema
from robolift.clips import composite
from robolift.clips.inputs import Features
from robolift.errors import UsageError
from robolift.manifest import Manifest, Output
from robolift.reward_model.checkpoint import load
from robolift.schema import Kind
from robolift.stages.stage import Input, Inputs, StageConfig

INPUTS = {
    "features": Input(kind=Kind.FEATURES),
    "model": Input(kind=Kind.REWARD_MODEL, optional=True),
}
OUTPUT = Kind.SCORES
TABLE = pa.schema(
    [
        pa.field("clip_id", pa.string(), nullable=False),
        pa.field("score", pa.float64(), nullable=False),
        pa.field("score_std", pa.float64(), nullable=False),
    ]
)
EXTREMES = 10


class Config(StageConfig):
    """What scores."""

    method: Literal["model", "composite", "motion", "random"] = "model"
    """`model`: the input's, on the scale of its reference clips. `composite`: a weighted sum of features. `motion`:
    motion_var alone. `random`: a number drawn for the clip. The last three have mean 0 and standard deviation 1 over
    these clips."""
    composite: Literal["prototype", "zscore"] = "zscore"
    """`prototype`: 0.2 each of min(blur/1000, 1), min(exposure/8, 1), min(motion_var/10, 1), hands,
    max(1 - jerk/5, 0). `zscore`: `weights` times standardized features."""
    weights: dict[str, float] = Field(default={"blur": 0.25, "exposure": 0.25, "motion_var": 0.25, "hands": 0.25})
    """Of `composite: zscore`."""
    seed: int = Field(default=0, ge=0)
    """Of `random`."""


def run(config: Config, inputs: Inputs, output: Output) -> Mapping[str, int]:
    """Write ``scores.parquet``."""
    model = inputs.get_one("model")
    if (config.method == "model") != (model is not None):
        raise UsageError(
            f"score_clips with method {config.method} {'needs' if model is None else 'takes no'} input model"
        )
    features = Features.open(inputs.one("features"))
    if model is not None:
        score, spread = _by_model(model, features)
    else:
        score = composite.standardize(_by_hand(config, features))
        spread = np.zeros(len(score))
    columns = {"clip_id": features.clip_id, "score": score, "score_std": spread}
    schema.write_table(output.path / "scores.parquet", pa.table(columns, schema=TABLE))
    order = np.argsort(-score, kind="stable")
    output.metrics.update(
        {
            "mean": float(score.mean()),
            "std": float(score.std()),
            "mean_uncertainty": float(spread.mean()),
            "best": [features.clip_id[row] for row in order[:EXTREMES]],
            "worst": [features.clip_id[row] for row in order[::-1][:EXTREMES]],
        }
    )
    return {"clips": len(score)}


def _by_model(model: Manifest, features: Features) -> tuple[np.ndarray, np.ndarray]:
    """Return score and its spread over the ensemble's members, each (n,)."""
    reward = load(model.uri)
    found = reward.member_scores(features.columns(reward.design.fields), features.embedding, features.origin)
    return found.mean(axis=0), found.std(axis=0)


def _by_hand(config: Config, features: Features) -> np.ndarray:
    if config.method == "random":
        return composite.random(features.clip_id, config.seed)
    if config.method == "motion":
        return features.scalar(composite.MOTION_FIELD)
    if config.composite == "prototype":
        return composite.prototype(features.columns(composite.PROTOTYPE_FIELDS))
    return composite.weighted(features.columns(tuple(config.weights)), config.weights)
