"""Training curves of the value model and of every policy, and how well values agree with their targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robolift import schema, storage
from robolift.data.dataset import Dataset
from robolift.data.split import carried_over
from robolift.errors import DataError
from robolift.manifest import Manifest
from robolift.reports.frames import FrameFacts
from robolift.reports.ranking import auc, spearman
from robolift.reports.success import VARIANTS, evaluated_policies

CURVES_FILE = "curves.json"
TRAIN, HELD_OUT = "train", "validation"

Series = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Steps (n,) and what was measured at each (n,)."""


@dataclass(frozen=True, kw_only=True)
class Curves:
    """What one training recorded.

    Attributes:
        name: What was trained.
        series: Loss of training batches under ``train`` and of held-out episodes under ``validation``, where recorded.
        held_out: Everything measured on held-out episodes when the weights were taken, empty if nothing was.
    """

    name: str
    series: dict[str, Series]
    held_out: dict[str, float]

    def last(self, series: str) -> float | None:
        """Return the last loss of a series, None if it was not recorded."""
        return float(self.series[series][1][-1]) if series in self.series else None


@dataclass(frozen=True, kw_only=True)
class ValueQuality:
    """How well the values agree with their targets.

    Attributes:
        held_out: Whether only episodes that the model was not trained on are counted.
        episodes: Episode numbers counted.
        spearman: Rank correlation of value and target over frames.
        outcome_auc: Chance that a successful episode has a higher mean value than a failed one.
        mean_error: Mean absolute difference of value and target.
    """

    held_out: bool
    episodes: NDArray[np.int64]
    spearman: float | None
    outcome_auc: float | None
    mean_error: float


def read_curves(trained: Manifest, name: str, *, step: int | None = None) -> Curves | None:
    """Read the curves of one training, None when it recorded none.

    Args:
        trained: A value model or a policy.
        name: What to call it.
        step: Optimizer step after which its weights were taken, None for the last.

    Raises:
        DataError: If the file does not hold rows of a step and a loss.
    """
    uri = trained.file(CURVES_FILE)
    if not storage.exists(uri):
        return None
    document: dict[str, list[dict[str, Any]]] = storage.read_json(uri)
    try:
        series = {key: _series(document[key]) for key in (TRAIN, HELD_OUT) if document.get(key)}
        taken = [row for row in document.get(HELD_OUT, []) if step is None or row["step"] <= step]
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"not training curves: {error!r}",
            where=uri,
            expected="train and validation: rows of step and loss",
            mend="train again",
        ) from error
    series = {key: (at, loss) for key, (at, loss) in series.items() if len(at)}
    held_out = {key: float(value) for key, value in taken[-1].items() if value is not None} if taken else {}
    return Curves(name=name, series=series, held_out=held_out) if series else None


def _series(rows: list[dict[str, Any]]) -> Series:
    # A value model also learns actions: only the value's part of its loss is what the held-out loss measures.
    points = [(row["step"], row.get("value_loss", row["loss"])) for row in rows]
    measured = np.asarray([(step, loss) for step, loss in points if loss is not None], dtype=np.float64).reshape(-1, 2)
    return measured[:, 0], measured[:, 1]


def value_curves(checkpoint: Manifest | None) -> Curves | None:
    """Read the curves of the value model, None without a checkpoint or curves."""
    if checkpoint is None:
        return None
    step = storage.read_json(checkpoint.file("checkpoint.json")).get("step")
    return read_curves(checkpoint, "value model", step=step)


def policy_curves(evaluations: Sequence[Manifest]) -> list[Curves]:
    """Read the curves of every evaluated policy, each once, in order of variant and seed."""
    ordered = evaluated_policies(evaluations)
    several = len({policy.config["variant"] for policy in ordered}) < len(ordered)
    found = []
    for policy in ordered:
        variant = str(policy.config["variant"])
        name = VARIANTS.get(variant, (variant.replace("_", " "), ""))[0]
        curves = read_curves(policy, f"{name}, seed {policy.seed}" if several else name)
        if curves:
            found.append(curves)
    return found


def held_out_episodes(checkpoint: Manifest | None, dataset: Dataset) -> NDArray[np.int64] | None:
    """Return the episodes of a dataset that the value model was not trained on, maybe none, sorted.

    Those are the episodes that the checkpoint says it held out, and all of sources that it was not trained on. None: it
    was trained on one of the sources and does not say what it held out.

    Raises:
        DataError: If the checkpoint names an episode that its dataset does not have.
    """
    if checkpoint is None:
        return None
    uri = checkpoint.file("checkpoint.json")
    stated = storage.read_json(uri).get("held_out_episodes")
    listed = stated or ()
    trained = Dataset.open(checkpoint.parent("dataset"))
    if absent := [episode for episode in listed if not 0 <= episode < trained.num_episodes]:
        raise DataError(
            f"held-out episode {max(absent)} is not in the dataset of {trained.num_episodes}",
            where=uri,
            mend="train the value model again",
        )
    held_out = carried_over(listed, trained.sources, dataset.sources)
    if stated is None and held_out is not None:
        return None
    known = {source.digest for source in trained.sources}
    unseen = [
        np.arange(source.first_episode, source.first_episode + source.num_episodes)
        for source in dataset.sources
        if source.digest not in known
    ]
    return np.sort(np.concatenate([np.asarray([] if held_out is None else held_out, np.int64), *unseen]))


def check_predicted_by(values: Manifest, checkpoint: Manifest | None) -> None:
    """Check that values were predicted with the checkpoint that the report speaks of.

    Raises:
        DataError: If they were predicted with another.
    """
    if checkpoint is None:
        return
    for shard in values.parents("shards")[:1]:
        for made_by in shard.inputs.get("checkpoint", []):
            if made_by.digest != checkpoint.digest:
                raise DataError(
                    f"the values were predicted by another value model ({made_by.uri})",
                    where=values.uri,
                    expected=checkpoint.uri,
                    mend="give the checkpoint that the values were predicted with",
                )


def value_quality(frames: FrameFacts, held_out: NDArray[np.int64] | None) -> ValueQuality | None:
    """Measure the values against their targets on held-out episodes, or on all where there are none or none known.

    Returns:
        None when nothing says what the values should be, or not in every frame.
    """
    if frames.value_target is None or not np.isfinite(frames.value_target).all():
        return None
    episodes = np.arange(frames.num_episodes) if held_out is None or not len(held_out) else held_out
    rows = frames.mask(episodes)
    value, target = frames.value[rows], frames.value_target[rows]
    means = np.asarray([frames.value[frames.rows(int(e))].mean() for e in episodes])
    outcome = frames.outcome[frames.starts[episodes]]
    known = outcome != schema.OUTCOMES.index("unknown")
    return ValueQuality(
        held_out=episodes is held_out,
        episodes=episodes,
        spearman=spearman(value, target),
        outcome_auc=auc(means[known], outcome[known] == schema.OUTCOMES.index("success")),
        mean_error=float(np.abs(value - target).mean()),
    )
