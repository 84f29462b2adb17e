"""Policies that act by rule, published as train_policy publishes its own; for tests of what uses a policy."""

from __future__ import annotations

import numpy as np

from robolift import storage
from robolift.labeling.prompts import PromptTable, advantage_prompts
from robolift.manifest import Manifest, Output, Plan
from robolift.schema import Kind
from robolift.sim import tasks
from robolift.stages import acting

TASK = tasks.TASKS["pick-place-v3"]


class RulePolicy:
    """Does what its prompt says: the expert's actions under ``positive``, nothing under ``negative`` or no label."""

    def __init__(self, facts: acting.PolicyFacts) -> None:
        from robolift.sim import graphics

        graphics.select("egl")
        from robolift.sim.experts import Expert

        self.cameras = facts.cameras
        self.state_keys = facts.state_keys
        self.image_size = facts.image_size
        self._horizon = facts.action_horizon
        self._dim = facts.action_dim
        self._expert = Expert("pick-place-v3")
        self.calls: list[dict] = []

    def act(self, observation, *, prompts, seed, guidance=1.0):
        self.calls.append({"prompts": list(prompts), "guidance": guidance, "keys": sorted(observation), "seed": seed})
        self.shown = {key: observation[key] for key in self.cameras}
        chunk = np.zeros((len(prompts), self._horizon, self._dim), np.float32)
        for row, prompt in enumerate(prompts):
            if prompt.endswith("positive"):
                seen = np.zeros(39)
                seen[:4] = observation[tasks.STATE][row, :4]
                seen[4:11] = observation[tasks.ENVIRONMENT_STATE][row, :7]
                seen[36:] = observation[tasks.ENVIRONMENT_STATE][row, 14:]
                chunk[row] = self._expert.act(seen)
        return chunk


def publish(
    root, *, trained=(0, 1, 2), dataset: Manifest | None = None, config=None, task: str = TASK, **changes
) -> Manifest:
    """Publish a policy folder; ``trained`` are the rows of (bare task, negative, positive) it was trained on."""
    table: PromptTable = advantage_prompts([task])
    document = {
        "cameras": [],
        "image_size": None,
        "state_keys": [tasks.STATE, tasks.ENVIRONMENT_STATE],
        "action_dim": 4,
        "action_horizon": 4,
        "execute": 2,
        "fps": 40.0,
        "prompts": table.to_dict(),
        "bare_prompts": [0, 0, 0],
        "trained_prompts": list(trained),
        "held_out_episodes": [1, 2],
        **changes,
    }
    config = {"variant": "advantage", **(config or {})}
    plan = Plan(
        stage="train_policy",
        kind=Kind.POLICY,
        root=str(root),
        config=config,
        inputs={"dataset": [dataset]} if dataset else {},
        code="0" * 16,
        digest=storage.digest_of([document, config, dataset.digest if dataset else ""]),
    )
    output = Output(plan)
    output.write_json(acting.POLICY_FILE, document)
    return output.publish({})


def serve_by_rule(monkeypatch) -> list[RulePolicy]:
    """Let the stages load rule policies; returns the list of those loaded."""
    loaded: list[RulePolicy] = []

    def load(facts):
        loaded.append(RulePolicy(facts))
        return loaded[-1]

    monkeypatch.setattr(acting, "load_policy", load)
    return loaded
