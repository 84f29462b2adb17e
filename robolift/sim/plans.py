"""What episodes will be made, from which seeds; needs no simulator.

An episode depends on its plan alone, never on the worker that makes it or on the episodes before it.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from robolift.errors import UsageError

# Three ranges that never meet: a policy isn't tested on scenes it was trained on, and what a policy records are not the
# scenes of the scripted recordings again.
SEEDS_PER_RUN = 100_000
MAX_SEED = 9_999
EVALUATION_SEEDS = 1_000_000_000
POLICY_SEEDS = 2_000_000_000
POLICY_RUNS = 20_000


@dataclass(frozen=True, kw_only=True)
class WorldSpec:
    """What a worker process needs to build worlds.

    Attributes:
        task: Meta-World task, ``pick-place-v3`` for one.
        cameras: Simulator names of the cameras; none means that nothing is rendered and no OpenGL is needed.
        image_size: Height and width of an image, pixels.
        gl: OpenGL library, ``egl`` or ``osmesa``.
    """

    task: str
    cameras: tuple[str, ...] = ()
    image_size: int = 96
    gl: str = "egl"


class Behaviour(enum.StrEnum):
    """Who moves the robot in an episode."""

    DEMO = "demo"
    AUTONOMOUS = "autonomous"
    TAKEOVER = "takeover"


@dataclass(frozen=True, kw_only=True)
class EpisodePlan:
    """One episode before it is made.

    Attributes:
        index: Its place in the dataset.
        seed: Decides object, goal, and everything random in it.
        behaviour: Who moves the robot.
        by_policy: A policy outside acts where a sloppy operator would.
        max_frames: Length after which it ends as a failure.
        frames_after_success: Frames recorded after the task is solved.
        action_noise: Standard deviation, action units.
        bad_fraction: Share of the sloppy operator's stretches that are bad.
        execute: Actions used of each chunk of the policy.
        keep_images: Render and return every frame; otherwise only what a policy looks at is drawn.
    """

    index: int
    seed: int
    behaviour: Behaviour
    by_policy: bool = False
    max_frames: int = 75
    frames_after_success: int = 0
    action_noise: float = 0.0
    bad_fraction: float = 0.5
    execute: int = 1
    keep_images: bool = False

    @property
    def kind(self) -> str:
        """The episode's kind in the data contract."""
        return "demo" if self.behaviour is Behaviour.DEMO else "rollout"


def behaviours(*, demos: int, autonomous: int, takeovers: int) -> list[Behaviour]:
    """Return each episode's behaviour in dataset order: demonstrations, autonomous rollouts, takeovers."""
    return [Behaviour.DEMO] * demos + [Behaviour.AUTONOMOUS] * autonomous + [Behaviour.TAKEOVER] * takeovers


def recording_seeds(seed: int, count: int, *, policy_digest: str = "") -> range:
    """Return the episode seeds of a recording.

    Args:
        seed: Of the run, 0 to 9,999. Two runs share no scene.
        count: Episodes.
        policy_digest: Identity (hex) of the policy that acts; another policy records other scenes. Empty without one.

    Raises:
        UsageError: If seed or count is out of range.
    """
    if not policy_digest:
        return _seeds(0, seed, count)
    _seeds(0, seed, count)
    return _seeds(POLICY_SEEDS, (int(policy_digest, 16) + seed) % POLICY_RUNS, count, last=POLICY_RUNS - 1)


def evaluation_seeds(seed: int, count: int) -> range:
    """Return the episode seeds of evaluation run ``seed``, from 1,000,000,000 on; they are never recorded.

    Raises:
        UsageError: If seed or count is out of range.
    """
    return _seeds(EVALUATION_SEEDS, seed, count)


def _seeds(base: int, run: int, count: int, *, last: int = MAX_SEED) -> range:
    if not 0 <= run <= last:
        raise UsageError(f"seed {run} is out of range, expected 0 to {last}")
    if count > SEEDS_PER_RUN:
        raise UsageError(f"{count} episodes in one run, at most {SEEDS_PER_RUN}; split them over several seeds")
    first = base + run * SEEDS_PER_RUN
    return range(first, first + count)


def check_fresh(seeds: range, recordings: Sequence[Mapping[str, Any]]) -> None:
    """Refuse to evaluate on scenes that the training data holds.

    Args:
        seeds: Seeds to be used.
        recordings: What each recording says of how it was simulated; ``seeds`` in it is [first, count].

    Raises:
        UsageError: If a seed was used for the data.
    """
    for recording in recordings:
        first, count = recording.get("seeds") or (0, 0)
        shared = range(max(seeds.start, first), min(seeds.stop, first + count))
        if shared:
            raise UsageError(
                f"scenes {shared.start} to {shared.stop - 1} are in the training data: evaluate with another seed"
            )
