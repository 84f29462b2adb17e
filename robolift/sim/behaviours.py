"""Who moves the robot at each frame: an expert, a sloppy operator, a policy, or an expert who takes over."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from robolift.sim.experts import Expert
from robolift.sim.progress import StallWatch, progress
from robolift.sim.tasks import ACTION_DIM
from robolift.sim.world import World

SEGMENT_FRAMES = (4, 12)  # 0.1 to 0.3 s
TAKEOVER_PATIENCE_FRAMES = 15
BAD_BEHAVIOURS = ("drift", "freeze", "fumble", "offset")


@dataclass(frozen=True)
class Control:
    """One frame's decision.

    Attributes:
        action: (4,) float32 in [-1, 1], as executed and recorded.
        control_mode: Value of the column of that name.
        by_expert: Ground truth: the expert chose it, knowing where the object is; None where nobody knows whether it is
            good, as of a policy.
    """

    action: np.ndarray
    control_mode: str
    by_expert: bool | None


class Operator:
    """Moves the robot. ``watch`` once a frame, ``feed`` while ``hungry``, then ``act``."""

    hungry = False

    def watch(self, world: World) -> None:
        """Look at the frame before acting."""

    def feed(self, actions: np.ndarray) -> None:
        """Receive a chunk of actions from outside; only asked of an operator that is hungry."""
        raise NotImplementedError

    def act(self, world: World) -> Control:
        """Choose the frame's action."""
        raise NotImplementedError


def _noisy(action: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
    jitter = rng.normal(0.0, noise, ACTION_DIM) if noise else 0.0
    return np.clip(action + jitter, -1.0, 1.0).astype(np.float32)


class Demonstrator(Operator):
    """The expert throughout, with Gaussian action noise.

    Args:
        expert: Who chooses.
        noise: Standard deviation, action units.
        rng: Source of the noise.
        control_mode: What the frames are recorded as.
    """

    def __init__(self, expert: Expert, *, noise: float, rng: np.random.Generator, control_mode: str = "demo") -> None:
        self._expert = expert
        self._noise = noise
        self._rng = rng
        self._control_mode = control_mode

    def act(self, world: World) -> Control:
        """Return the expert's action with noise."""
        action = _noisy(self._expert.act(world.observation), self._noise, self._rng)
        return Control(action, self._control_mode, by_expert=True)


class SloppyOperator(Operator):
    """The expert with stretches of bad behaviour of 0.1 to 0.3 s, recorded as autonomous.

    drift: a constant random velocity. freeze: no motion. fumble: the gripper does the opposite. offset: the expert
    aims 4 to 7 cm beside the object. Zero-mean noise alone would not do: cloning averages it away.

    Args:
        expert: Who acts between the bad stretches.
        noise: Standard deviation of action noise on everything, action units.
        bad_fraction: Probability that a stretch is bad, each drawn for itself.
        rng: Source of everything random.
    """

    def __init__(self, expert: Expert, *, noise: float, bad_fraction: float, rng: np.random.Generator) -> None:
        self._expert = expert
        self._noise = noise
        self._bad_fraction = bad_fraction
        self._rng = rng
        self._left = 0
        self._behaviour = ""
        self._velocity = np.zeros(3)
        self._offset = np.zeros(3)

    def _next_stretch(self) -> None:
        self._left = int(self._rng.integers(SEGMENT_FRAMES[0], SEGMENT_FRAMES[1] + 1))
        self._behaviour = ""
        if self._rng.random() < self._bad_fraction:
            self._behaviour = str(self._rng.choice(BAD_BEHAVIOURS))
            direction = self._rng.normal(size=3)
            self._velocity = direction / np.linalg.norm(direction) * self._rng.uniform(0.5, 1.0)
            angle = self._rng.uniform(0.0, 2.0 * np.pi)
            self._offset = self._rng.uniform(0.04, 0.07) * np.array([np.cos(angle), np.sin(angle), 0.0])

    def act(self, world: World) -> Control:
        """Return the action of the present stretch with noise."""
        if self._left == 0:
            self._next_stretch()
        self._left -= 1
        offset = self._offset if self._behaviour == "offset" else None
        action = self._expert.act(world.observation, object_offset_m=offset)
        if self._behaviour == "drift":
            action[:3] = self._velocity
        elif self._behaviour == "freeze":
            action[:3] = 0.0
        elif self._behaviour == "fumble":
            action[3] = -action[3]
        return Control(_noisy(action, self._noise, self._rng), "autonomous", by_expert=not self._behaviour)


class ChunkFollower(Operator):
    """Executes the first actions of each chunk that a policy sends.

    Args:
        execute: Actions executed before it asks again.
        noise: Standard deviation of exploration noise, action units.
        rng: Source of the noise.
    """

    def __init__(self, *, execute: int, noise: float, rng: np.random.Generator) -> None:
        self._execute = execute
        self._noise = noise
        self._rng = rng
        self._queue: deque[np.ndarray] = deque()

    @property
    def hungry(self) -> bool:  # type: ignore[override]
        """Whether it needs a chunk before it can act."""
        return not self._queue

    def feed(self, actions: np.ndarray) -> None:
        """Take a chunk (horizon, 4) of which the first ``execute`` are used."""
        self._queue.extend(actions[: self._execute])

    def act(self, world: World) -> Control:
        """Return the next action of the chunk."""
        return Control(_noisy(self._queue.popleft(), self._noise, self._rng), "autonomous", by_expert=None)


class Takeover(Operator):
    """Lets an operator work until it makes no progress, then the expert finishes.

    Args:
        operator: Who begins.
        rescuer: Who takes over, for good, once progress stalls.
        patience: Frames without progress after which that happens.
    """

    def __init__(self, operator: Operator, rescuer: Operator, *, patience: int = TAKEOVER_PATIENCE_FRAMES) -> None:
        self._operator = operator
        self._rescuer = rescuer
        self._watch = StallWatch(patience=patience)

    @property
    def hungry(self) -> bool:  # type: ignore[override]
        """Whether the one who is at work needs actions."""
        return self._operator.hungry

    def watch(self, world: World) -> None:
        """Follow the progress, and change hands when it has stopped."""
        if self._operator is not self._rescuer and self._watch.stalled(progress(world)):
            self._operator = self._rescuer
        self._operator.watch(world)

    def feed(self, actions: np.ndarray) -> None:
        """Pass a chunk on."""
        self._operator.feed(actions)

    def act(self, world: World) -> Control:
        """Return the action of the one who is at work."""
        return self._operator.act(world)
