"""How far a task is done, from the simulator's state: ground truth for labels, and for when an expert takes over."""

from __future__ import annotations

import numpy as np

from robolift.sim.world import GOAL, World

REACH_M = 0.25
LIFT_M = 0.02
NUM_TASK_STAGES = {"pick-place-v3": 2}


def progress(world: World) -> float:
    """Return task progress in [0, 1].

    pick-place: 0.3 clip(1 - |hand - object| / 0.25 m) + 0.7 clip(1 - |object - goal| / |object_0 - goal|).

    Any other task: Meta-World's dense reward / 10, which is 1 when solved and rises along the way, but was shaped for
    reinforcement learning: it is not linear in time and may fall on a good path. Use it to tell a stalled controller
    from a working one, not as an annotation.
    """
    if world.spec.task in NUM_TASK_STAGES:
        reach, carry = _pick_place(world)
        return 0.3 * reach + 0.7 * carry
    return 1.0 if world.success else float(np.clip(world.shaped_reward / 10.0, 0.0, 1.0))


def stage_progress(world: World) -> float:
    """Return progress in [0, 1] with equal shares for the task stages, as kai0 annotates them.

    pick-place has two: reaching and grasping fills [0, 0.5), carrying, once the object is 2 cm off the table, fills
    [0.5, 1]. A dropped object falls back to the first. Other tasks are one stage: :func:`progress`.
    """
    if world.spec.task not in NUM_TASK_STAGES:
        return progress(world)
    reach, carry = _pick_place(world)
    lifted = world.observation[6] > world.initial[6] + LIFT_M
    return 0.5 + 0.5 * carry if lifted else 0.499 * reach


def _pick_place(world: World) -> tuple[float, float]:
    hand, thing, goal = world.observation[0:3], world.observation[4:7], world.observation[GOAL]
    whole_way = np.linalg.norm(world.initial[4:7] - world.initial[GOAL])
    reach = 1.0 - np.linalg.norm(hand - thing) / REACH_M
    carry = 1.0 - np.linalg.norm(thing - goal) / whole_way
    return float(np.clip(reach, 0.0, 1.0)), float(np.clip(carry, 0.0, 1.0))


class StallWatch:
    """Tells when progress has stopped.

    Args:
        patience: Frames without gain after which it says so.
        min_gain: Smallest rise over the best progress so far that counts.
    """

    def __init__(self, *, patience: int, min_gain: float = 0.02) -> None:
        self._patience = patience
        self._min_gain = min_gain
        self._best = -np.inf
        self._since = 0

    def stalled(self, value: float) -> bool:
        """Take in the next frame's progress and tell whether ``patience`` frames passed without gain."""
        if value >= self._best + self._min_gain:
            self._best, self._since = value, 0
        else:
            self._since += 1
        return self._since >= self._patience
