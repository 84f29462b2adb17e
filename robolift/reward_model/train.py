"""Trains a reward model: design, ensemble, scale."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from robolift.errors import DataError
from robolift.reward_model import linear
from robolift.reward_model.checkpoint import RewardModel
from robolift.reward_model.comparisons import Comparisons
from robolift.reward_model.design import Design, kept_fields
from robolift.reward_model.recipe import Recipe

REFERENCE = "clips of training groups"
STOPPING_SHARE = 0.2
"""Of the pairs, those by which a single network stops."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Trained:
    """A reward model and how it came about.

    Attributes:
        model: The model.
        rewards: (n,) raw reward of every clip, the mean of the members'; the one that probabilities are worked out of.
        tie_logit: Mean over members of log of Davidson's nu, None without.
        curves: ``members``: one list of rows for each; ``cross_validation``: loss by penalty (linear).
    """

    model: RewardModel
    rewards: np.ndarray
    tie_logit: float | None
    curves: Mapping[str, Any]

    def points(self) -> Iterator[tuple[str, int, float]]:
        """Return the curves as points (tag, step, value)."""
        for number, rows in enumerate(self.curves["members"]):
            for step, row in enumerate(rows):
                yield from ((f"member_{number}/{name}", step, value) for name, value in row.items() if name != "epoch")
        for step, row in enumerate(self.curves["cross_validation"]):
            yield from ((f"cross_validation/{name}", step, value) for name, value in row.items())


def fit_design(
    columns: Mapping[str, np.ndarray], embedding: np.ndarray, *, training: np.ndarray, recipe: Recipe
) -> Design:
    """Return what the recipe's model sees, measured on the training clips.

    Raises:
        UsageError: If nothing is left to see.
    """
    fields, with_embedding = kept_fields(recipe.fields, recipe.drop)
    components = recipe.pca if recipe.model == "linear" else None
    # Without a component of it, scoring must not ask for the embedding either.
    seen = embedding if with_embedding and components != 0 else embedding[:, :0]
    return Design.fit(columns, seen, rows=training, fields=fields, components=components)


def train(
    columns: Mapping[str, np.ndarray],
    embedding: np.ndarray,
    comparisons: Comparisons,
    *,
    training: np.ndarray,
    recipe: Recipe,
    facts: Mapping[str, Any],
) -> Trained:
    """Train an ensemble on comparisons between training clips.

    Args:
        columns: Features by name, each (n,).
        embedding: (n, width).
        comparisons: Those between training clips.
        training: (n,) bool, the training clips; scale and design are measured on them.
        recipe: How.
        facts: What else model.json is to say.

    Raises:
        DataError: If nobody decided anything, or the model gives every clip the same reward.
    """
    design = fit_design(columns, embedding, training=training, recipe=recipe)
    seen = design.apply(columns, embedding)
    found = comparisons.without_ties() if recipe.ties == "drop" else comparisons
    if len(found.without_ties()) == 0:
        raise DataError(
            "no training pair was decided",
            where="preferences.parquet",
            expected="answers A or B about pairs within the training clips",
            mend="compare more pairs",
        )
    samples = _samples(found, recipe)
    members, tie_logits, curves, penalty = _fit_members(seen, found, samples, recipe)
    tie_logit = None if None in tie_logits else float(np.mean([logit for logit in tie_logits if logit is not None]))
    document = {
        **facts,
        "kind": recipe.model,
        "fields": list(design.fields),
        "drop": list(recipe.drop),
        "embedding": len(design.centre),
        "pca": design.directions.shape[1] if recipe.model == "linear" else None,
        "standardization": _standardization(design),
        "beta": recipe.beta,
        "ties": recipe.ties,
        "tie_logit": tie_logit,
        "l2": penalty,
        "ensemble": recipe.ensemble,
    }
    raw = RewardModel(design=design, members=members, facts=document).member_rewards(seen)
    model = RewardModel(design=design, members=members, facts={**document, "reference": _scale(raw[:, training])})
    return Trained(model=model, rewards=raw.mean(axis=0), tie_logit=tie_logit, curves=curves)


def _samples(found: Comparisons, recipe: Recipe) -> list[np.ndarray]:
    """Return how often each answer counts for each member, (n,).

    A single member is no bootstrap: it takes every answer once, but a network leaves out those that tell it to stop.
    """
    rng = np.random.default_rng([recipe.seed, len(found)])
    if recipe.ensemble == 1:
        return [found.leave_out(rng, STOPPING_SHARE) if recipe.model == "mlp" else np.ones(len(found))]
    return [found.bootstrap(rng) for _ in range(recipe.ensemble)]


def _fit_members(
    seen: np.ndarray, found: Comparisons, samples: list[np.ndarray], recipe: Recipe
) -> tuple[tuple[dict[str, np.ndarray], ...], list[float | None], dict[str, Any], float | None]:
    if recipe.model == "mlp":
        from robolift.reward_model.neural import train_member  # noqa: PLC0415  (a linear model needs no torch)

        trained = [
            train_member(seen, found, sample, recipe, seed=recipe.seed * 1000 + number)
            for number, sample in enumerate(samples)
        ]
        grown: dict[str, Any] = {"members": [curve for _, _, curve in trained], "cross_validation": []}
        return tuple(weights for weights, _, _ in trained), [logit for _, logit, _ in trained], grown, None
    penalty = recipe.l2
    searched: list[dict[str, Any]] = []
    if not penalty:
        penalty, searched = linear.choose_penalty(seen, found, beta=recipe.beta, ties=recipe.ties, seed=recipe.seed)
    fits = [
        linear.fit(
            seen[found.a] - seen[found.b],
            found.targets(recipe.ties),
            sample,
            penalty=penalty,
            beta=recipe.beta,
            davidson=recipe.ties == "davidson",
        )
        for sample in samples
    ]
    curves = {"members": [[{"loss": loss} for loss in fit.losses] for fit in fits], "cross_validation": searched}
    return tuple({"weights": fit.weights} for fit in fits), [fit.tie_logit for fit in fits], curves, penalty


def _standardization(design: Design) -> dict[str, dict[str, float | None]]:
    """Return mean and spread of each field; the spread of a constant one is null."""
    return {
        name: {"mean": float(mean), "std": float(std) if np.isfinite(std) else None}
        for name, mean, std in zip(design.fields, design.mean, design.std, strict=False)
    }


def _scale(raw: np.ndarray) -> dict[str, Any]:
    """Return each member's mean and the ensemble's spread over the reference clips, ``raw`` (members, clips)."""
    std = float(raw.mean(axis=0).std())
    if std <= 1e-12:
        raise DataError(
            "the reward model gives every clip the same reward",
            where="features.parquet",
            expected="features that differ between clips",
            mend="give it more fields, or more comparisons",
        )
    return {"name": REFERENCE, "clips": raw.shape[1], "mean": raw.mean(axis=1).tolist(), "std": std}
