"""Scores made by hand, without anybody's preferences: what a learned reward has to be better than."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from robolift.errors import UsageError

PROTOTYPE_FIELDS = ("blur", "exposure", "motion_var", "hands", "jerk")
MOTION_FIELD = "motion_var"


def prototype(columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the prototype's score, (n,) in [0, 1]: a fifth each of five features clipped to [0, 1].

    0.2 (min(blur / 1000, 1) + min(exposure / 8, 1) + min(motion_var / 10, 1) + hands + max(1 - jerk / 5, 0)).

    On the prototype's own comparisons it agrees with the person in 12 of 34 pairs; it is a control, not a quality.
    """
    parts = (
        np.minimum(columns["blur"] / 1000, 1),
        np.minimum(columns["exposure"] / 8, 1),
        np.minimum(columns["motion_var"] / 10, 1),
        columns["hands"],
        np.maximum(1 - columns["jerk"] / 5, 0),
    )
    return np.asarray(0.2 * np.sum(parts, axis=0))


def weighted(columns: Mapping[str, np.ndarray], weights: Mapping[str, float]) -> np.ndarray:
    """Return the sum of standardized features times their weights, (n,); a constant feature adds nothing.

    Raises:
        UsageError: If there is no weight.
    """
    if not weights:
        raise UsageError("score_clips.weights is empty; expected a weight for at least one feature")
    return np.asarray(np.sum([weight * standardize(columns[name]) for name, weight in weights.items()], axis=0))


def standardize(values: np.ndarray) -> np.ndarray:
    """Return ``values`` (n,) with mean 0 and standard deviation 1; all 0 where they are all the same."""
    centred = values - values.mean()
    spread = float(centred.std())
    return np.asarray(centred / spread if spread > 1e-12 * max(1.0, float(np.abs(values).max())) else centred * 0)


def random(clip_ids: Sequence[str], seed: int) -> np.ndarray:
    """Return a number in [0, 1) for each clip, (n,), that depends on its id and the seed alone."""
    drawn = [hashlib.sha256(f"{seed}:{clip_id}".encode()).digest()[:8] for clip_id in clip_ids]
    return np.array([int.from_bytes(number) / 2**64 for number in drawn])
