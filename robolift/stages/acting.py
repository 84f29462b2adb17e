"""A trained policy as the actor of simulated episodes; shared by recording and evaluation.

What a policy needs is read from its ``policy.json``, so that everything can be checked before JAX is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from robolift import storage
from robolift.data.scaling import scale_images
from robolift.errors import DataError, UsageError
from robolift.labeling.prompts import UNLABELLED, PromptTable, best_label, prompt
from robolift.manifest import Manifest
from robolift.sim import tasks
from robolift.sim.recording import Actor

if TYPE_CHECKING:
    from robolift.policy.serving import Policy

POLICY_FILE = "policy.json"


@dataclass(frozen=True, kw_only=True)
class PolicyFacts:
    """What a policy expects and offers.

    Attributes:
        uri: Its folder.
        cameras: Camera features it looks through.
        image_size: (height, width) of its images, None without cameras.
        state_keys: State features it reads.
        action_dim: Length of an action.
        action_horizon: Actions it predicts at once.
        execute: How many of them to carry out before asking again.
        fps: Rate of its actions, Hz.
        tasks: Task texts it knows, without a label.
        trained_prompts: Prompts that occurred in its training.
        held_out_episodes: Episodes of its dataset that neither it nor its encoder was trained on; None where an older
            policy does not say.
    """

    uri: str
    cameras: tuple[str, ...]
    image_size: tuple[int, int] | None
    state_keys: tuple[str, ...]
    action_dim: int
    action_horizon: int
    execute: int
    fps: float
    tasks: tuple[str, ...]
    trained_prompts: tuple[str, ...]
    held_out_episodes: tuple[int, ...] | None

    def prompt(self, task: str, label: str | int | None) -> str:
        """Return the prompt for a task text under a label; ``"none"`` or None is the bare task.

        Raises:
            UsageError: If the policy wasn't trained on it.
        """
        text = prompt(task, None if label == UNLABELLED else label)
        if text not in self.trained_prompts:
            known = "\n  ".join(self.trained_prompts)
            raise UsageError(f"the policy wasn't trained on the prompt {text!r}, but on:\n  {known}")
        return text

    def best_label(self, task: str) -> str | int:
        """Return the label to act under: ``positive``, or the highest slice, or ``none`` where no label was trained."""
        return best_label(task, self.trained_prompts)


def read_policy(manifest: Manifest) -> PolicyFacts:
    """Read what a policy says about itself.

    Raises:
        DataError: If it doesn't.
    """
    where = manifest.file(POLICY_FILE)
    document: dict[str, Any] = storage.read_json(where)
    try:
        table = PromptTable.from_dict(document["prompts"])
        size, held_out = document["image_size"], document.get("held_out_episodes")
        return PolicyFacts(
            uri=manifest.uri,
            cameras=tuple(document["cameras"]),
            image_size=(int(size[0]), int(size[1])) if size else None,
            state_keys=tuple(document["state_keys"]),
            action_dim=int(document["action_dim"]),
            action_horizon=int(document["action_horizon"]),
            execute=int(document["execute"]),
            fps=float(document["fps"]),
            tasks=tuple(table[index] for index in sorted(set(document["bare_prompts"]))),
            trained_prompts=tuple(table[index] for index in document["trained_prompts"]),
            held_out_episodes=None if held_out is None else tuple(held_out),
        )
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise DataError(f"not a policy: {error!r}", where=where, mend="run train_policy again") from error


def check_simulated(facts: PolicyFacts, *, execute: int | None) -> int:
    """Check that a policy can act in our simulator and return how many actions of a chunk to execute.

    Raises:
        UsageError: Saying what doesn't fit.
    """
    states = {tasks.STATE, tasks.ENVIRONMENT_STATE}
    if unknown := set(facts.state_keys) - states:
        raise UsageError(f"the policy reads {', '.join(sorted(unknown))}; the simulator has: {', '.join(states)}")
    if facts.action_dim != tasks.ACTION_DIM or facts.fps != tasks.CONTROL_HZ:
        raise UsageError(
            f"the policy makes {facts.action_dim} numbers at {facts.fps:g} Hz, "
            f"the simulated robot takes {tasks.ACTION_DIM} at {tasks.CONTROL_HZ} Hz"
        )
    chosen = execute or facts.execute
    if chosen > facts.action_horizon:
        raise UsageError(f"execute is {chosen}, but the policy predicts {facts.action_horizon} actions at once")
    return chosen


def load_policy(facts: PolicyFacts) -> Policy:
    """Load the policy's weights."""
    from robolift.policy.serving import Policy  # noqa: PLC0415  (JAX takes seconds and is only needed here)

    return Policy.load(facts.uri)


def actor(policy: Policy, *, prompt: str, guidance: float) -> Actor:
    """Return the policy under one prompt as a function of observations and a seed a row."""

    def act(observation: Mapping[str, np.ndarray], seeds: Sequence[int]) -> np.ndarray:
        seen = {key: scale_images(observation[key], policy.image_size) for key in policy.cameras}
        seen |= {key: observation[key] for key in policy.state_keys}
        return policy.act(seen, prompts=[prompt] * len(seeds), seed=seeds, guidance=guidance)

    return act
