"""Measure whether scores foretell how useful clips are to a policy, beside controls, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from pydantic import Field

from robolift import schema, storage
from robolift.clips import validation
from robolift.clips.inputs import Features
from robolift.clips.validation import Outcomes, Resamples
from robolift.errors import DataError, UsageError
from robolift.manifest import Manifest, Output
from robolift.schema import Kind
from robolift.stages.shards import identity_of_set, missing_shards, origin
from robolift.stages.stage import Input, Inputs, StageConfig, digests

INPUTS = {
    "scores": Input(kind=Kind.SCORES),
    "downstream": Input(kind=Kind.DOWNSTREAM, many=True),
    "features": Input(kind=Kind.FEATURES),
    "model": Input(kind=Kind.REWARD_MODEL, optional=True),
    "controls": Input(kind=Kind.SCORES, many=True, optional=True),
    "ablations": Input(kind=Kind.SCORES, many=True, optional=True),
}
OUTPUT = Kind.VALIDATION


class Config(StageConfig):
    """What the reward must reach."""

    rho_min: float = Field(default=0.5, ge=-1, le=1)
    """Smallest correlation (Spearman's) of a subset's mean score with dM. To pass, the interval must lie above 0 too,
    shuffled scores must not reach as much on the same subsets, and there must be at least 50 subsets."""
    drop_min: float = Field(default=0.1, ge=0, le=2)
    """Smallest drop of the correlation that an ablation is expected to make."""
    bootstrap: int = Field(default=2000, ge=100)
    """Bootstrap samples over subsets, none of which share clips, the same for all scores that are compared."""
    confidence: float = Field(default=0.95, gt=0, lt=1)
    """Of the intervals."""
    gate: bool = True
    """Whether a run whose reward does not pass ends in an error. The numbers are published in any case; the pipeline's
    last step looks at them, after the report is written."""
    seed: int = Field(default=0, ge=0)
    """Of the bootstrap."""


def input_identity(name: str, manifests: Sequence[Manifest]) -> Any:
    """Identify a whole set of shards by what was trained, however it was cut: the result is the same."""
    return identity_of_set(name, manifests, origin) if name == "downstream" else digests(name, manifests)


def run(config: Config, inputs: Inputs, output: Output) -> Mapping[str, int]:
    """Write ``validation.json``."""
    clip_ids = Features.open(inputs.one("features")).clip_id
    check_shards(inputs["downstream"], inputs.one("scores"), inputs.one("features"))
    check_scores(inputs)
    rows = [row for shard in inputs["downstream"] for row in _rows(shard)]
    outcomes = Outcomes.of(rows, where="downstream.parquet")
    resamples = Resamples.draw(
        len(outcomes.subset), samples=config.bootstrap, confidence=config.confidence, seed=config.seed
    )

    def by_clip(manifest: Manifest) -> dict[str, float]:
        return dict(zip(clip_ids, validation.read_scores(manifest, clip_ids).tolist(), strict=True))

    scores = by_clip(inputs.one("scores"))
    means = outcomes.mean_scores(scores)
    rho = validation.correlation(means, outcomes.delta_m, resamples)
    by_chance = validation.chance(outcomes, scores, rho["rho"], resamples=resamples, seed=config.seed)
    reasons = validation.failures(rho, by_chance, rho_min=config.rho_min)
    controls = {
        name: validation.correlation(outcomes.mean_scores(by_clip(manifest)), outcomes.delta_m, resamples)
        for name, manifest in _named(inputs.get("controls", [])).items()
    }
    ablations = [
        {
            "drop": _dropped(manifest),
            **validation.drop_in_rho(
                means,
                outcomes.mean_scores(by_clip(manifest)),
                outcomes.delta_m,
                resamples,
                drop_min=config.drop_min,
            ),
        }
        for manifest in inputs.get("ablations", [])
    ]
    model = inputs.get_one("model")
    document = {
        "rho": rho,
        "passed": not reasons,
        "reasons": reasons,
        "rho_min": config.rho_min,
        "gate": config.gate,
        "chance": asdict(by_chance),
        "controls": controls,
        "ablations": ablations,
        "power": {
            "subsets": len(outcomes.subset),
            "interval_of_rho_min": validation.fisher_interval(config.rho_min, len(outcomes.subset)),
        },
        "baseline": {"mean": outcomes.baseline, "std": outcomes.baseline_std},
        "preferences": model.metrics() if model is not None else None,
        "delta_m": [
            {"subset": number, "mean_score": float(mean), "delta_m": float(delta)}
            for number, mean, delta in zip(outcomes.subset, means, outcomes.delta_m, strict=True)
        ],
    }
    output.write_json("validation.json", document)
    output.metrics.update({**rho, "passed": float(not reasons)})
    output.metrics.update({f"rho_{name}": found["rho"] for name, found in controls.items()})
    return {"subsets": len(outcomes.subset), "controls": len(controls), "ablations": len(ablations)}


def _rows(shard: Manifest) -> list[dict[str, Any]]:
    return list(schema.read_parquet(shard.file("downstream.parquet")).to_pylist())


def check_shards(shards: Sequence[Manifest], scores: Manifest, features: Manifest) -> None:
    """Check that the shards are all of one experiment on these scores and features.

    Raises:
        DataError: If they differ, some are missing, or they are of other scores or features.
    """
    if len({storage.digest_of(origin(shard)) for shard in shards}) > 1 or missing_shards(shards):
        raise DataError(
            "the shards are not one experiment",
            where=", ".join(f"{shard.config['shard']} of {shard.config['num_shards']}" for shard in shards),
            expected="each shard once, all of one configuration and the same inputs",
            mend="run the missing shards",
        )
    for name, given in (("scores", scores), ("features", features)):
        if shards[0].inputs[name][0].digest != given.digest:
            raise DataError(
                f"the subsets were drawn by other {name}",
                where=shards[0].uri,
                expected=f"{name} {given.uri}",
                mend=f"run train_downstream on these {name}",
            )


def check_scores(inputs: Inputs) -> None:
    """Check that all scores are of the same features, and the reward's by the model that is given.

    Raises:
        DataError: Naming the one that is not.
    """
    scores, features, model = inputs.one("scores"), inputs.one("features"), inputs.get_one("model")
    if model is not None and [parent.digest for parent in scores.inputs.get("model", [])] != [model.digest]:
        raise DataError(
            "the scores are by another model",
            where=scores.uri,
            expected=f"scores by {model.uri}",
            mend="give the model that the clips were scored with",
        )
    for name in ("scores", "controls", "ablations"):
        for manifest in inputs.get(name, []):
            if manifest.inputs["features"][0].digest != features.digest:
                raise DataError(
                    f"{name} are of other features",
                    where=manifest.uri,
                    expected=f"scores of {features.uri}",
                    mend="score the clips with these features",
                )


def _named(controls: Sequence[Manifest]) -> dict[str, Manifest]:
    """Return controls by what they score by.

    Raises:
        UsageError: If two are of one name.
    """
    found: dict[str, Manifest] = {}
    for manifest in controls:
        config = manifest.config
        name = str(config["method"])
        if name == "composite" and config["composite"] == "prototype":
            name = "composite_prototype"
        if name in found:
            raise UsageError(f"controls has two scores of {name}: {found[name].uri} and {manifest.uri}; expected one")
        found[name] = manifest
    return found


def _dropped(manifest: Manifest) -> list[str]:
    """Return the features that the model of an ablated score does not see.

    Raises:
        UsageError: If the score is not by a model without some features.
    """
    drop = manifest.parent("model").config["drop"] if manifest.inputs.get("model") else []
    if not drop:
        raise UsageError(
            f"ablations has {manifest.uri}, which leaves no feature out; "
            "expected scores by a reward model that was trained with drop"
        )
    return list(drop)
