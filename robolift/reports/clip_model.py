"""What a reward model learned from comparisons: how well it foretells others, and which features it goes by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import safetensors.numpy

from robolift import storage
from robolift.errors import DataError
from robolift.manifest import Manifest
from robolift.reports.intervals import Interval

MODEL_FILE = "model.json"
WEIGHTS_FILE = "model.safetensors"


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """How well a score orders pairs that people decided.

    Attributes:
        auc: Pair-AUC, each pair standing both ways, with its interval over pairs.
        accuracy: Share of pairs whose chosen clip scores higher.
        pairs: How many.
    """

    auc: Interval
    accuracy: float
    pairs: int


@dataclass(frozen=True, kw_only=True)
class Model:
    """A reward model, as its page shows it.

    Attributes:
        kind: ``linear`` or ``mlp``.
        held_out: On pairs of clips that it was not trained on, None without any.
        train: On the pairs it was trained on.
        controls: Scores that nobody learned, on the held-out pairs.
        weights: By how much a standard deviation of a feature moves the reward: mean and 2.5 to 97.5 % of the
            ensemble's members, the largest first. Empty for a network, whose features act together.
        embedding: Numbers of the embedding that it sees, 0 for none.
        ensemble: Members.
        held_out_videos: How many videos none of its training clips are from.
        expected_auc: Pair-AUC that the true order is expected to reach on the held-out pairs, an estimate from the
            annotators' repeats; None without repeats.
    """

    kind: str
    held_out: Ranking | None
    train: Ranking | None
    controls: Mapping[str, Ranking]
    weights: Mapping[str, Interval]
    embedding: int
    ensemble: int
    held_out_videos: int
    expected_auc: float | None


def read(made: Manifest) -> Model:
    """Read a reward model's files.

    Raises:
        DataError: If they are not what ``train_reward`` writes.
    """
    where = made.file(MODEL_FILE)
    document = storage.read_json(where)
    try:
        metrics = made.metrics()
        rankings = {name: _ranking(one) for name, one in sorted(metrics["controls"].items())}
        return Model(
            kind=str(document["kind"]),
            held_out=_ranking(metrics["held_out"]),
            train=_ranking(metrics["train"]),
            controls={name: one for name, one in rankings.items() if one},
            weights=_weights(made, document) if document["kind"] == "linear" else {},
            embedding=int(document["embedding"] if document["pca"] is None else document["pca"]),
            ensemble=int(document["ensemble"]),
            held_out_videos=len(document["held_out_videos"]),
            expected_auc=None if (expected := metrics["expected_pair_auc"]) is None else float(expected),
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DataError(
            f"not a reward model: {error!r}",
            where=where,
            expected="model.json, model.safetensors and metrics.json as train_reward writes them",
            mend="run train_reward again",
        ) from error


def _ranking(one: Mapping[str, Any]) -> Ranking | None:
    if one["pair_auc"] is None:
        return None
    return Ranking(
        auc=Interval(estimate=float(one["pair_auc"]), low=float(one["pair_auc_low"]), high=float(one["pair_auc_high"])),
        accuracy=float(one["accuracy"]),
        pairs=int(one["pairs"]),
    )


def _weights(made: Manifest, document: Mapping[str, Any]) -> dict[str, Interval]:
    """Return the weights of the scalar features, which come first; features are standardized, so they compare."""
    tensors = safetensors.numpy.load(storage.read_bytes(made.file(WEIGHTS_FILE)))
    members = np.stack([tensors[f"member.{number}.weights"] for number in range(document["ensemble"])])
    found = {
        str(name): Interval(
            estimate=float(column.mean()), low=float(np.quantile(column, 0.025)), high=float(np.quantile(column, 0.975))
        )
        for name, column in zip(document["fields"], members.T, strict=False)
    }
    return dict(sorted(found.items(), key=lambda entry: (-abs(entry[1].estimate), entry[0])))
