"""How often do worthless scores look useful? Random scores, each with subsets and policies of its own.

    python benchmarks/validation_calibration.py

A world is 20 participants of 15 clips, whose clips differ in how much they teach: with a clip's quality the noise of
its targets falls. Participants differ too, and a quarter of them is the test. Then scores are drawn that know nothing.
"""

from __future__ import annotations

import argparse

import numpy as np

from robolift.clips import downstream, validation
from robolift.clips.validation import Outcomes, Resamples

PARTICIPANTS, CLIPS, SAMPLES, SUBSETS = 20, 15, 10, 50


def world(seed: int) -> downstream.Task:
    """Draw the samples of a world's clips."""
    rng = np.random.default_rng([seed, 1])
    num = PARTICIPANTS * CLIPS
    participant = np.repeat(np.arange(PARTICIPANTS), CLIPS)
    quality = rng.normal(size=num) + rng.normal(size=PARTICIPANTS)[participant]
    clip = np.repeat(np.arange(num), SAMPLES)
    inputs = rng.normal(size=(len(clip), 8 + downstream.HAND_COLUMNS)) + rng.normal(size=(num, 1))[clip]
    noise = np.exp(-quality[clip])[:, None] * rng.normal(size=(len(clip), 2))
    targets = inputs @ np.random.default_rng(0).normal(size=(inputs.shape[1], 2)) + noise
    samples = downstream.Samples(clip=clip, inputs=inputs, targets=targets, by_hand=np.ones(len(clip), bool))
    return downstream.Task.of(samples, participant >= PARTICIPANTS * 3 // 4, components=8)


def experiment(task: downstream.Task, hidden: np.ndarray, penalty: float, seed: int) -> tuple[float, float, bool, bool]:
    """Return the ends of the interval of one random scorer's rho, whether it passes, and whether a control misses 0."""
    rng = np.random.default_rng([seed, 2])
    scores, other = rng.normal(size=(2, PARTICIPANTS * CLIPS))
    pool = np.unique(task.clip[~task.test])
    size = downstream.subset_size(len(pool), num_subsets=SUBSETS, size=0)
    subsets = downstream.draw_subsets(scores, pool, num_subsets=SUBSETS, num_random=1, size=size, seed=seed)
    rows = [
        {
            "subset": number,
            "group": subset.group,
            "seed": 0,
            "m": downstream.measure(task, hidden, subset.clips, penalty=penalty),
            "clips": [str(clip) for clip in subset.clips],
        }
        for number, subset in enumerate(subsets)
    ]
    outcomes = Outcomes.of(rows, where="")
    resamples = Resamples.draw(SUBSETS, samples=500, confidence=0.95, seed=seed)
    named, control = ({str(clip): float(value) for clip, value in enumerate(given)} for given in (scores, other))
    found = validation.correlation(outcomes.mean_scores(named), outcomes.delta_m, resamples)
    beside = validation.correlation(outcomes.mean_scores(control), outcomes.delta_m, resamples)
    luck = validation.chance(outcomes, named, found["rho"], resamples=resamples, seed=seed)
    passed = not validation.failures(found, luck, rho_min=0.5)
    return found["lower"], found["upper"], passed, not beside["lower"] <= 0 <= beside["upper"]


def main() -> None:
    """Run the experiments and print the shares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--worlds", type=int, default=20)
    parser.add_argument("--scorers", type=int, default=40)
    told = parser.parse_args()
    found = []
    for number in range(told.worlds):
        task = world(number)
        hidden = downstream.hidden_layer(task.inputs, units=32, seed=number)
        pool = np.unique(task.clip[~task.test])
        penalty = downstream.choose_penalty(task, [hidden], pool, size=len(pool) // SUBSETS, seed=number)
        found += [experiment(task, hidden, penalty, number * told.scorers + k) for k in range(told.scorers)]
    low, high, passed, control = (np.array(column) for column in zip(*found, strict=True))
    print(f"{len(found)} random scorers")
    print(f"interval above 0: {(low > 0).mean():.3f}; below 0: {(high < 0).mean():.3f}")
    print(
        f"interval without 0: {((low > 0) | (high < 0)).mean():.3f}; control on the same subsets: {control.mean():.3f}"
    )
    print(f"all conditions met: {passed.mean():.3f}")


if __name__ == "__main__":
    main()
