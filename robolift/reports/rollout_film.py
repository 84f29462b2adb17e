"""Film strips of evaluation episodes: two policies from the same start."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robolift.data.video import probe
from robolift.data.video_decoder import VideoDecoder
from robolift.reports.film import Picture, pictures
from robolift.reports.success import BASELINE, TREATMENT, VARIANTS, Rollouts, best_condition


@dataclass(frozen=True, kw_only=True)
class RolloutStrip:
    """One filmed evaluation episode."""

    name: str
    seed: int
    success: bool
    length: int
    pictures: tuple[Picture, ...]


def same_start(rollouts: Sequence[Rollouts], *, num_pictures: int) -> tuple[RolloutStrip, ...]:
    """Show plain cloning and the method from one start; empty unless both were filmed from a common one.

    The first filmed start is taken at which the outcomes differ, whichever way, else the first.
    """
    method = best_condition({one.condition for one in rollouts if one.variant == TREATMENT})
    baselines = [one for one in rollouts if one.variant == BASELINE]
    methods = [one for one in rollouts if one.variant == TREATMENT and one.condition == method]
    pair = next(((a, b) for a in baselines for b in methods if a.training_seed == b.training_seed), None)
    common = sorted(set(pair[0].videos) & set(pair[1].videos)) if pair else []
    if pair is None or not common:
        return ()
    outcomes = [dict(zip(one.seed.tolist(), one.success.tolist(), strict=True)) for one in pair]
    differing = [seed for seed in common if outcomes[0][seed] != outcomes[1][seed]]
    return tuple(_strip(one, (differing or common)[0], num_pictures) for one in pair)


def _strip(one: Rollouts, seed: int, num_pictures: int) -> RolloutStrip:
    row = int(np.flatnonzero(one.seed == seed)[0])
    frames = list(_first_camera(one.videos[seed]))
    return RolloutStrip(
        name=VARIANTS[one.variant][0],
        seed=seed,
        success=bool(one.success[row]),
        length=int(one.length[row]),
        pictures=tuple(pictures(frames, np.zeros(len(frames), dtype=bool), num_pictures=num_pictures)),
    )


def _first_camera(uri: str) -> Iterator[NDArray[np.uint8]]:
    """Yield the film's frames; it has the cameras' square images side by side, of which the first is kept."""
    with VideoDecoder(uri, fps=float(probe(uri).fps)) as decoder:
        for frame in decoder.frames():
            yield frame[:, : frame.shape[0]]
