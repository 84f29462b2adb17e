"""Run one episode to its end and keep its record."""

from __future__ import annotations

from collections.abc import Generator

import numpy as np

from robolift.sim.behaviours import ChunkFollower, Control, Demonstrator, Operator, SloppyOperator, Takeover
from robolift.sim.experts import Expert
from robolift.sim.plans import Behaviour, EpisodePlan
from robolift.sim.progress import progress, stage_progress
from robolift.sim.records import EpisodeRecord, Observation
from robolift.sim.world import World

NOT_KNOWN = -1  # in is_good_gt: zero never means missing


def operator_for(plan: EpisodePlan, expert: Expert) -> Operator:
    """Return who moves the robot in this episode, with a random stream of its own."""
    rng = np.random.default_rng([plan.seed, 1])
    if plan.behaviour is Behaviour.DEMO:
        return Demonstrator(expert, noise=plan.action_noise, rng=rng)
    operator: Operator = (
        ChunkFollower(execute=plan.execute, noise=plan.action_noise, rng=rng)
        if plan.by_policy
        else SloppyOperator(expert, noise=plan.action_noise, bad_fraction=plan.bad_fraction, rng=rng)
    )
    if plan.behaviour is Behaviour.AUTONOMOUS:
        return operator
    rescuer = Demonstrator(expert, noise=plan.action_noise, rng=rng, control_mode="correcting")
    return Takeover(operator, rescuer)


def run_episode(world: World, plan: EpisodePlan, expert: Expert) -> Generator[Observation, np.ndarray, EpisodeRecord]:
    """Run one episode; yields an observation each time a policy must choose the next chunk of actions.

    Scripted episodes never yield. The value sent in is (horizon, 4); the generator's return value is the record.
    """
    operator = operator_for(plan, expert)
    world.reset(plan.seed)
    rows: list[dict[str, np.ndarray]] = []
    images: list[Observation] = []
    solved_at = 0
    end = plan.max_frames
    while len(rows) < end:
        operator.watch(world)
        if operator.hungry:
            operator.feed((yield {**world.states(), **world.images()}))
        control = operator.act(world)
        rows.append(_row(world, control))
        if plan.keep_images:
            images.append(world.images())
        world.step(control.action)
        if world.success and not solved_at:
            solved_at = len(rows)
            end = min(end, solved_at + plan.frames_after_success)
    return EpisodeRecord(
        plan=plan,
        success=solved_at > 0,
        length=solved_at or len(rows),
        columns={name: np.stack([row[name] for row in rows]) for name in rows[0]},
        images={key: np.stack([image[key] for image in images]) for key in (images[0] if images else ())},
    )


def _row(world: World, control: Control) -> dict[str, np.ndarray]:
    return {
        **world.states(),
        "action": control.action,
        "control_mode": np.array(control.control_mode, dtype=object),
        "intervention": np.array(control.control_mode == "correcting", np.int64),
        "progress_gt": np.array(progress(world), np.float32),
        "stage_progress_gt": np.array(stage_progress(world), np.float32),
        "is_good_gt": np.array(NOT_KNOWN if control.by_expert is None else control.by_expert, np.int64),
    }
