"""Who is ranked, who ranks them, and who is labelled without being ranked."""

from __future__ import annotations

import enum

import numpy as np
import numpy.typing as npt

from robolift.labeling.returns import BoolArray, IntArray


class Role(enum.IntEnum):
    """Who controlled a frame."""

    AUTONOMOUS = 0  # the policy, in a rollout
    INTERVENTION = 1  # a person correcting a rollout
    DEMO = 2  # a person, in a demonstration
    PAUSED = 3  # nobody: the robot was held still


class Reason(enum.IntEnum):
    """What decided a label."""

    THRESHOLD = 0
    FORCED_INTERVENTION = 1
    DEMO = 2
    EXCLUDED = 3


class Population(enum.StrEnum):
    """The frames whose advantages set the cut. Systems differ in it: research calls it the most confused choice."""

    ROLLOUT_AUTONOMOUS = "rollout_autonomous"  # pistar
    LATEST_ROLLOUT_AUTONOMOUS = "latest_rollout_autonomous"  # RECAP's paper: the rollouts of the newest iteration
    ROLLOUT = "rollout"  # with the corrections
    ALL = "all"  # kai0, RLinf, Evo-RL: every frame that is not paused


class Treatment(enum.StrEnum):
    """What becomes of frames that a person controlled."""

    POSITIVE = "positive"  # positive (the top slice), whatever their advantage
    SCORE = "score"  # ranked like the rest


def population_mask(role: IntArray, population: Population, latest: BoolArray) -> BoolArray:
    """Return which frames set the cut, (F,).

    Args:
        role: :class:`Role` of each frame, (F,).
        population: Which population.
        latest: Whether the frame belongs to the newest iteration, (F,).
    """
    autonomous: BoolArray = role == Role.AUTONOMOUS
    masks: dict[Population, BoolArray] = {
        Population.ROLLOUT_AUTONOMOUS: autonomous,
        Population.LATEST_ROLLOUT_AUTONOMOUS: autonomous & latest,
        Population.ROLLOUT: autonomous | (role == Role.INTERVENTION),
        Population.ALL: role != Role.PAUSED,
    }
    return masks[population]


def label_reasons(
    role: IntArray, valid: BoolArray, *, intervention: Treatment, demo: Treatment
) -> npt.NDArray[np.int8]:
    """Return what decides the label of each frame, a :class:`Reason`, (F,) int8.

    Args:
        role: :class:`Role` of each frame, (F,).
        valid: Whether its advantage may be ranked, (F,).
        intervention: What becomes of corrections.
        demo: What becomes of demonstrations.
    """
    reason = np.where(valid, Reason.THRESHOLD, Reason.EXCLUDED).astype(np.int8)
    if intervention == Treatment.POSITIVE:
        reason[role == Role.INTERVENTION] = Reason.FORCED_INTERVENTION
    if demo == Treatment.POSITIVE:
        reason[role == Role.DEMO] = Reason.DEMO
    reason[role == Role.PAUSED] = Reason.EXCLUDED
    return reason


def task_stages(progress: npt.NDArray[np.floating], num_stages: int) -> npt.NDArray[np.int64]:
    """Return the task stage of each frame: min(floor(S * p + 1e-9), S - 1), the rule of kai0's stage-aware cut.

    A column of float32 gets half a unit in the last place more, so that a frame on an edge (0.7 of S = 10) belongs to
    the same stage whichever precision it was stored in.

    Args:
        progress: Stage progress in [0, 1], (F,), without NaN.
        num_stages: S, at least 1.
    """
    slack = 1e-9 + (num_stages * 2.0**-24 if progress.dtype == np.float32 else 0.0)
    stage = np.floor(progress.astype(np.float64) * num_stages + slack).astype(np.int64)
    return np.clip(stage, 0, num_stages - 1)
