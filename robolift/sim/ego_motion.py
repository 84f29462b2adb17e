"""What happens in a simulated egocentric video: planted quality, and a hand that works, idles or is away.

Lengths are in picture heights, y down. In the work phases the hand nears the visible target, object or goal, with a
velocity proportional to the distance, so its displacement over the next half second is
(1 - exp(-APPROACH / 2)) x (target - hand): a linear relation that behaviour cloning can learn. Where the hand idles, is
away, or the camera shakes, there is no such relation; blur and exposure hide it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

FACTORS = ("sharpness", "exposure", "steadiness", "hands", "purpose")
UTILITY_WEIGHTS = {"sharpness": 0.25, "exposure": 0.25, "steadiness": 1.2, "hands": 1.2, "purpose": 0.3}
"""The planted utility of a moment is the sum of weight x factor; that of a clip is the mean over its moments."""

APPROACH = 1.8
REACHED = 0.035
ASPECT = 4 / 3
SHAKE = 0.09
OBJECTS = (0.15, 0.5)
GOALS = (ASPECT - 0.5, ASPECT - 0.15)
_PHASE_S = (4.0, 8.0)
_REST = np.array([0.85, 0.78])


@dataclass(frozen=True)
class Manner:
    """How one participant films and works.

    Attributes:
        care: For each factor of FACTORS, how much likelier than average good moments are, -0.15 to 0.15.
        skin: Index of the skin tone.
        left_handed: Which hand works.
        second_hand: Whether the other hand rests in view.
    """

    care: tuple[float, ...]
    skin: int
    left_handed: bool
    second_hand: bool


@dataclass(frozen=True)
class Course:
    """One video, frame by frame.

    Attributes:
        factors: (T, 5) in [0, 1], by FACTORS.
        too_dark: (T,) whether bad exposure means too dark and not too bright.
        hand: (T, 2) y, x of the palm on the table.
        target: (T, 2) y, x of the object or goal.
        carrying: (T,) whether the object is in the hand and the goal is shown.
        camera: (T, 2) y, x that the picture is shifted by.
        tasks: (start, stop) in frames of each object carried to its goal, or as far as it got.
    """

    factors: Array
    too_dark: Array
    hand: Array
    target: Array
    carrying: Array
    camera: Array
    tasks: tuple[tuple[int, int], ...]

    @property
    def utility(self) -> Array:
        """(T,) planted utility."""
        return np.asarray(self.factors @ np.array([UTILITY_WEIGHTS[name] for name in FACTORS]))


def manner(rng: np.random.Generator, num_skins: int) -> Manner:
    """Draw a participant."""
    return Manner(
        care=tuple(rng.uniform(-0.15, 0.15, len(FACTORS)).tolist()),
        skin=int(rng.integers(num_skins)),
        left_handed=bool(rng.random() < 0.3),
        second_hand=bool(rng.random() < 0.25),
    )


def course(who: Manner, *, seconds: float, fps: float, rng: np.random.Generator) -> Course:
    """Draw one video of a participant."""
    frames = round(seconds * fps)
    factors, too_dark = _quality(who, frames, fps, rng)
    hand, target, carrying, tasks = _work(factors, fps, rng)
    camera = _camera(factors[:, FACTORS.index("steadiness")], fps, rng)
    return Course(factors, too_dark, hand, target, carrying, camera, tasks)


def _quality(who: Manner, frames: int, fps: float, rng: np.random.Generator) -> tuple[Array, Array]:
    """Draw phases of some seconds; in each a factor is good or bad.

    Hands, purpose and a steady head come together; focus and light do not depend on them.
    """
    factors, too_dark = np.zeros((frames, len(FACTORS))), np.zeros(frames, bool)
    start = 0
    while start < frames:
        stop = min(start + round(rng.uniform(*_PHASE_S) * fps), frames)
        likely = 0.5 + np.array(who.care)
        likely[2:] += 0.7 * (rng.random() - 0.5)
        good = rng.random(len(FACTORS)) < likely
        level = np.where(good, rng.uniform(0.92, 1.0, len(FACTORS)), rng.uniform(0.0, 0.35, len(FACTORS)))
        level[3:] = good[3:]
        level[4] *= level[3]  # an absent hand does nothing on purpose
        factors[start:stop] = level
        too_dark[start:stop] = rng.random() < 0.5
        start = stop
    return factors, too_dark


def _work(
    factors: Array, fps: float, rng: np.random.Generator
) -> tuple[Array, Array, Array, tuple[tuple[int, int], ...]]:
    frames = len(factors)
    hands, targets, carrying = np.zeros((frames, 2)), np.zeros((frames, 2)), np.zeros(frames, bool)
    hand, target, held = _REST.copy(), _place(rng, OBJECTS), False
    idle, tasks, begun = _place(rng), [], None
    for t in range(frames):
        purposeful, present = factors[t, 4] > 0, factors[t, 3] > 0
        hands[t], targets[t], carrying[t] = hand, target, held
        if purposeful:
            begun = t if begun is None else begun
            hand = hand + (target - hand) * (1 - np.exp(-APPROACH / fps))
            if np.hypot(*(target - hand)) < REACHED:
                if held:
                    tasks.append((begun, t + 1))
                    begun = None
                held = not held
                target = _place(rng, GOALS if held else OBJECTS)
            continue
        if begun is not None:
            tasks.append((begun, t))
            begun = None
        if not present:
            hand = _REST.copy()
            continue
        if rng.random() < 1.2 / fps:  # an idle hand changes its mind about once a second
            idle = _place(rng)
        hand = hand + (idle - hand) * (1 - np.exp(-2.5 / fps))
    if begun is not None:
        tasks.append((begun, frames))
    return hands, targets, carrying, tuple(tasks)


def _place(rng: np.random.Generator, side: tuple[float, float] = (0.15, ASPECT - 0.15)) -> Array:
    """Draw a place on the table, in part of its width."""
    return np.array([rng.uniform(0.2, 0.8), rng.uniform(*side)])


def _camera(steadiness: Array, fps: float, rng: np.random.Generator) -> Array:
    """Draw a head that sways a little, and jerks to a new place every eighth of a second where it isn't steady."""
    frames = len(steadiness)
    knots = np.arange(0, frames + fps, fps / 8)
    jerks = rng.uniform(-1, 1, (2, len(knots)))
    time = np.arange(frames)
    shaken = np.stack([np.interp(time, knots, axis) for axis in jerks], 1) * (1 - steadiness)[:, None] * SHAKE
    sway = 0.006 * np.sin(2 * np.pi * (time[:, None] / fps * np.array([0.23, 0.31]) + rng.random(2)))
    return np.asarray(np.clip(shaken + sway, -SHAKE, SHAKE))
