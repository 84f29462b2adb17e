"""Learn a reward from preferences: a Bradley-Terry model on features, an ensemble of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from pydantic import Field

from robolift import schema, storage
from robolift.clips import composite
from robolift.clips.inputs import Clips, Features
from robolift.clips.preferences import expected_pair_auc
from robolift.clips.split import hold_out
from robolift.errors import DataError
from robolift.manifest import Manifest, Output
from robolift.reward_model import checkpoint, metrics, tensorboard
from robolift.reward_model.comparisons import Comparisons, split
from robolift.reward_model.recipe import Recipe
from robolift.reward_model.train import train
from robolift.schema import Kind
from robolift.stages.stage import Input, Inputs, StageConfig

INPUTS = {
    "features": Input(kind=Kind.FEATURES),
    "preferences": Input(kind=Kind.PREFERENCES),
    "clips": Input(kind=Kind.CLIPS),
}
OUTPUT = Kind.REWARD_MODEL


class Config(StageConfig, Recipe):
    """The model, what it sees, and how it is trained."""

    split_by: Literal["participant", "video"] = "participant"
    """What training and held-out pairs never share."""
    held_out: float = Field(default=0.2, gt=0, lt=1)
    """Share of participants or videos held out. Pairs with one clip on each side teach nothing and measure nothing."""


def run(config: Config, inputs: Inputs, output: Output) -> Mapping[str, int]:
    """Write ``model.safetensors``, ``model.json``, ``curves.json`` and ``tensorboard/``."""
    clips, features = Clips.open(inputs.one("clips")), Features.open(inputs.one("features"))
    features.check_clips(clips)
    columns = features.columns(config.fields)
    groups = clips.groups(config.split_by)
    held = hold_out(groups, config.held_out, config.seed)
    comparisons = _comparisons(inputs.one("preferences"), clips)
    known, unseen, crossing = split(comparisons, held)
    _check_held_out(unseen, crossing)
    trained = train(
        columns,
        features.embedding,
        known,
        training=~held,
        recipe=Recipe(**{name: getattr(config, name) for name in Recipe.model_fields}),
        facts={
            "features": dict(features.origin),
            "split_by": config.split_by,
            "held_out_groups": sorted({group for group, out in zip(groups, held, strict=True) if out}),
            "held_out_videos": sorted({video for video, out in zip(clips.video_id, held, strict=True) if out}),
        },
    )
    checkpoint.save(output.path, trained.model)
    output.write_json("curves.json", trained.curves)
    tensorboard.write_scalars(output.path / "tensorboard", trained.points())
    measured = {
        name: metrics.evaluate(
            trained.rewards,
            part,
            beta=config.beta,
            ties=config.ties,
            tie_logit=trained.tie_logit,
            seed=config.seed,
        )
        for name, part in (("train", known), ("held_out", unseen))
    }
    agreement = storage.read_json(inputs.one("preferences").file("agreement.json"))
    controls = {
        name: metrics.ranking(score, unseen, seed=config.seed) for name, score in _controls(features, config.seed)
    }
    output.metrics.update({**measured, **_reachable(agreement, trained.rewards, unseen), "controls": controls})
    return {
        "train_annotations": len(known),
        "held_out_annotations": len(unseen),
        "crossing_annotations": crossing,
        "train_clips": int((~held).sum()),
        "held_out_clips": int(held.sum()),
    }


def _comparisons(preferences: Manifest, clips: Clips) -> Comparisons:
    uri = preferences.file("preferences.parquet")
    table = schema.read_parquet(uri)
    a, b = (clips.rows(table.column(f"clip_{side}_id").to_pylist(), where=uri) for side in "ab")
    return Comparisons.of(a, b, table.column("preference").to_pylist())


def _reachable(agreement: Mapping[str, Any], reward: np.ndarray, unseen: Comparisons) -> dict[str, float | None]:
    """Return what people's consistency lets a model reach on the held-out pairs, None where none was asked twice."""
    repeated = agreement["repeat_consistency_decided"]
    margin = metrics.margins(reward, unseen.without_ties())
    return {
        "accuracy_ceiling": agreement["accuracy_ceiling"],
        "expected_pair_auc": None if repeated is None else expected_pair_auc(margin, repeated),
    }


def _check_held_out(unseen: Comparisons, crossing: int) -> None:
    if len(unseen.without_ties()) == 0:
        raise DataError(
            "no decided pair lies within the held-out clips, so the model could not be measured",
            where=f"preferences.parquet: {len(unseen)} ties, {crossing} pairs with one clip on each side",
            expected="at least one pair whose clips are both held out",
            mend="compare more pairs, raise held_out, or split by video",
        )


def _controls(features: Features, seed: int) -> list[tuple[str, np.ndarray]]:
    """Return scores that nobody had to learn, where their features were measured."""
    found: list[tuple[str, Any]] = [("random", composite.random(features.clip_id, seed))]
    measured = set(features.scalars)
    if composite.MOTION_FIELD in measured:
        found.append(("motion", features.scalar(composite.MOTION_FIELD)))
    if measured >= set(composite.PROTOTYPE_FIELDS):
        found.append(("composite", composite.prototype(features.columns(composite.PROTOTYPE_FIELDS))))
    return found
