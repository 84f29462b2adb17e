"""Which participants or videos are held out: one rule for the reward model and for the downstream check."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from robolift.errors import DataError


def hold_out(groups: Sequence[str], fraction: float, seed: int) -> np.ndarray:
    """Return which clips are held out, (n,) bool; clips of one group are never divided.

    The choice depends on the names of the groups and the seed, not on how many clips a group has.

    Args:
        groups: (n,) group of each clip.
        fraction: Share of the groups, in (0, 1); at least one is held out and at least one is not.
        seed: Which ones.

    Raises:
        DataError: If there is only one group.
    """
    names = sorted(set(groups))
    if len(names) < 2:
        raise DataError(
            f"all clips are of one group, {names[0]}",
            where="participants or videos of the clips",
            expected="at least two, so that one can be held out",
            mend="split by video, or add videos of other participants",
        )
    count = min(max(1, round(fraction * len(names))), len(names) - 1)
    order = np.random.default_rng([seed, len(names)]).permutation(len(names))
    chosen = {names[index] for index in order[:count]}
    return np.array([group in chosen for group in groups])
