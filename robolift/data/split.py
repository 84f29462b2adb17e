"""Which episodes are held out: one rule, so that value models and policies with the same arguments agree."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from robolift.data.dataset import Source
from robolift.errors import UsageError


def split_episodes(outcome: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return training and held-out episode indices, both sorted; every outcome gives its share, as near as can be.

    Args:
        outcome: (E,) outcomes, as texts or as codes.
        fraction: Share of the episodes to hold out; above 0 at least one is.
        seed: Which ones.

    Raises:
        UsageError: If no episode is left to train on.
    """
    count = max(1, round(fraction * len(outcome))) if fraction > 0 else 0
    if count >= len(outcome):
        raise UsageError(f"val_fraction {fraction} of {len(outcome)} episodes leaves none to train on")
    order = np.random.default_rng([seed, len(outcome)]).permutation(len(outcome))
    place = np.empty(len(outcome))
    for one in np.unique(outcome):
        group = order[outcome[order] == one]
        # Evenly spaced in (0, 1) within each outcome: the lowest places of all hold each outcome's share.
        place[group] = (np.arange(len(group)) + 0.5) / len(group)
    held_out = np.sort(order[np.argsort(place[order], kind="stable")][:count])
    return np.setdiff1d(np.arange(len(outcome)), held_out), held_out


def carried_over(held_out: Sequence[int], theirs: Sequence[Source], ours: Sequence[Source]) -> np.ndarray | None:
    """Return the held-out episodes of one dataset as episodes of another, sorted; None if they share no source.

    Args:
        held_out: Episodes of the first dataset.
        theirs: Its sources.
        ours: Sources of the second dataset, which number the same episodes from their own start.
    """
    start = {source.digest: source.first_episode for source in ours}
    shared = [source for source in theirs if source.digest in start]
    if not shared:
        return None
    found = [
        start[source.digest] + episode - source.first_episode
        for source in shared
        for episode in held_out
        if 0 <= episode - source.first_episode < source.num_episodes
    ]
    return np.sort(np.asarray(found, np.int64))
