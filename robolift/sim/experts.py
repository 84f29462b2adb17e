"""Meta-World's scripted experts, able to recover from what a bad controller left behind."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from metaworld.policies import ENV_POLICY_MAP

from robolift.sim.tasks import check_task
from robolift.sim.world import OBJECT_POSE


class Expert:
    """A scripted expert for one task; it sees the simulator's state.

    Meta-World's experts leave the gripper as it is while they are far from the object (effort 0), so one that takes
    over with a closed gripper never opens it and succeeds a third of the time. Effort 0 becomes -1 (open) here, which
    leaves demonstrations as they were and lifts takeovers to 0.8 at pick-place.
    """

    def __init__(self, task: str) -> None:
        policy_class: Any = ENV_POLICY_MAP[check_task(task)]
        self._policy = policy_class()

    def act(self, observation: np.ndarray, *, object_offset_m: np.ndarray | None = None) -> np.ndarray:
        """Return the (4,) action in [-1, 1].

        Args:
            observation: (39,) Meta-World observation.
            object_offset_m: (3,) error added to where the object is believed to be.
        """
        seen = observation.copy()
        if object_offset_m is not None:
            seen[OBJECT_POSE.start : OBJECT_POSE.start + 3] += object_offset_m
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns whenever it asks for full speed, which is most of the time
            action = np.array(self._policy.get_action(seen), np.float64)
        if action[3] <= 0:
            action[3] = -1.0
        return np.clip(action, -1.0, 1.0)
