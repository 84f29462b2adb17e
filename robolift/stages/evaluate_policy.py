"""Measure a policy: success in the simulator on fresh scenes, or action error on episodes it was not trained on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, model_validator

from robolift import schema
from robolift.data.dataset import Dataset
from robolift.data.video import encode_video
from robolift.errors import UsageError
from robolift.labeling.prompts import UNLABELLED
from robolift.logging import get_logger, progress
from robolift.manifest import Output
from robolift.reports.intervals import newcombe_paired, wilson
from robolift.schema import Kind
from robolift.sim import tasks
from robolift.sim.plans import Behaviour, EpisodePlan, WorldSpec, check_fresh, evaluation_seeds
from robolift.sim.recording import Actor, record_with_actor
from robolift.sim.records import EpisodeRecord
from robolift.sim.workers import Workers
from robolift.stages import acting, offline
from robolift.stages.stage import Input, Inputs, StageConfig

INPUTS: Mapping[str, Input] = {"policy": Input(kind=Kind.POLICY), "dataset": Input(kind=Kind.DATASET)}
OUTPUT = Kind.EVALUATION

FEW_EPISODES = 100
ONLOOKER = "corner2"  # films a policy that has no camera of its own
SIMULATOR = "robolift"  # key of info.json that simulate_episodes writes
ROLLOUTS = pa.schema(
    [
        pa.field("condition", pa.string(), nullable=False),
        pa.field("prompt", pa.string(), nullable=False),
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("success", pa.bool_(), nullable=False),
        pa.field("length", pa.int32(), nullable=False),
    ]
)


class Condition(BaseModel):
    """What a policy is asked for."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str = Field("", pattern="^[^/]*$")
    """Name in the results, without slashes; empty: the label, with the guidance where that isn't 1."""
    label: str | int = "positive"
    """Advantage it is asked for: positive, negative, none, or the number of a slice."""
    guidance: float = Field(1.0, ge=0)
    """Strength of classifier-free guidance; 1 is the conditional policy."""

    @property
    def key(self) -> str:
        """The name, made up where none was given."""
        return self.name or (str(self.label) if self.guidance == 1 else f"{self.label}, guidance {self.guidance:g}")


class Config(StageConfig):
    """What the policy is asked for, and where it is measured."""

    RUNTIME: ClassVar[frozenset[str]] = frozenset({"num_workers"})

    mode: Literal["auto", "closed_loop", "offline"] = "auto"
    """closed_loop: success in the simulator; offline: action error on held-out episodes; auto: the first for data that
    our simulator recorded, else the second."""
    conditions: tuple[Condition, ...] = ()
    """What to ask for; by default positive (or the highest slice). A policy that was trained without labels has one
    condition whatever stands here: none."""
    seed: int = Field(0, ge=0, le=9999)
    """Chooses the scenes, which no recording has; the same for every policy and condition."""
    num_episodes: int = Field(100, ge=1, le=100_000)
    """Closed loop: episodes of each condition; below 100 the intervals are wide."""
    execute: Annotated[int, Field(ge=1)] | None = None
    """Closed loop: actions executed of each chunk; by default what the policy was made for."""
    max_frames: Annotated[int, Field(ge=1, le=250)] | None = None
    """Closed loop: frames after which an episode has failed; by default as recorded."""
    record_episodes: int = Field(0, ge=0)
    """Closed loop: of each condition the first so many episodes are kept as videos of what the policy saw."""
    stride: int = Field(5, ge=1)
    """Offline: every so manieth frame of an episode is measured."""
    gl: Literal["egl", "osmesa"] = "egl"
    """OpenGL library, both headless and without a GPU."""
    num_workers: Annotated[int, Field(ge=1)] | None = None
    """Simulator processes; by default one a core."""

    @model_validator(mode="after")
    def _distinct(self) -> Config:
        names = [condition.key for condition in self.conditions]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"conditions stand twice: {', '.join(twice)}")
        return self


def run(config: Config, inputs: Inputs, output: Output) -> dict[str, int]:
    """Evaluate, and return how many episodes and conditions there were."""
    facts = acting.read_policy(inputs.one("policy"))
    dataset = Dataset.open(inputs.one("dataset"))
    if config.mode == "closed_loop" or (config.mode == "auto" and dataset.simulator):
        return _closed_loop(config, facts, dataset, output)
    return _offline(config, facts, dataset, inputs, output)


def conditions_of(config: Config, facts: acting.PolicyFacts, task: str) -> list[Condition]:
    """Return the conditions to evaluate: those configured, or the policy's best; ``none`` for one without labels."""
    best = facts.best_label(task)
    if best == UNLABELLED:
        return [Condition(label=UNLABELLED)]
    return list(config.conditions) or [Condition(label=best)]


def _closed_loop(config: Config, facts: acting.PolicyFacts, dataset: Dataset, output: Output) -> dict[str, int]:
    simulator = _simulator(dataset)
    if len(dataset.tasks) != 1:
        raise UsageError(
            f"closed_loop needs a dataset of one task; this one has: {', '.join(map(repr, dataset.tasks))}\n"
            "  mend: import recordings of one task with one task text (import_dataset.task), or use mode: offline"
        )
    # The dataset's text, which the policy was trained on; the recording may have had another.
    (task,) = dataset.tasks
    conditions = {c.key: (c, facts.prompt(task, c.label)) for c in conditions_of(config, facts, task)}
    seeds = evaluation_seeds(config.seed, config.num_episodes)
    check_fresh(seeds, [dataset.reader(number).info[SIMULATOR] for number in range(len(dataset.sources))])
    execute = acting.check_simulated(facts, execute=config.execute)
    max_frames = config.max_frames or simulator.get("max_frames")
    if not max_frames:
        raise UsageError("the recordings differ in max_frames: say which to evaluate with")
    if config.num_episodes < FEW_EPISODES:
        get_logger("evaluate_policy").warning("few episodes: the intervals will be wide", episodes=config.num_episodes)
    plans = [
        EpisodePlan(
            index=index,
            seed=seed,
            behaviour=Behaviour.AUTONOMOUS,
            by_policy=True,
            max_frames=max_frames,
            execute=execute,
            keep_images=index < config.record_episodes,
        )
        for index, seed in enumerate(seeds)
    ]
    spec = _spec(config, facts, simulator)
    policy = acting.load_policy(facts)
    found: dict[str, list[EpisodeRecord]] = {}
    with Workers(spec, config.num_workers) as workers:
        for name, (condition, prompt) in conditions.items():
            actor = acting.actor(policy, prompt=prompt, guidance=condition.guidance)
            found[name] = list(_measured(workers, plans, actor, name, output))
    prompts = {name: prompt for name, (_, prompt) in conditions.items()}
    schema.write_table(output.path / "rollouts.parquet", rollouts_table(found, prompts))
    output.metrics.update({"mode": "closed_loop", "task": simulator["task"], **success_metrics(found)})
    return {"conditions": len(found), "episodes": sum(len(records) for records in found.values())}


def _simulator(dataset: Dataset) -> dict[str, Any]:
    found = dataset.simulator or {}
    if missing := [key for key in ("simulator", "task", "image_size") if key not in found]:
        raise UsageError(
            f"closed_loop needs recordings of simulate_episodes that agree; these do not in: {', '.join(missing)}\n"
            "  mend: use mode: offline for other data"
        )
    return found


def _spec(config: Config, facts: acting.PolicyFacts, simulator: Mapping[str, Any]) -> WorldSpec:
    """Return the worlds to evaluate in: recorded image size, and the policy's cameras only, since each costs time."""
    cameras = tuple(tasks.camera_name(key) for key in facts.cameras)
    if config.record_episodes and not cameras:
        cameras = (ONLOOKER,)
    task = tasks.check_task(simulator["task"])
    return WorldSpec(task=task, cameras=cameras, image_size=simulator["image_size"], gl=config.gl)


def _measured(
    workers: Workers, plans: Sequence[EpisodePlan], actor: Actor, condition: str, output: Output
) -> Iterator[EpisodeRecord]:
    """Yield the records of one condition, their images written to ``videos/<condition>/<seed>.mp4`` and let go."""
    records = record_with_actor(workers, plans, actor)
    for record in progress(records, total=len(plans), what=f"evaluate {condition}", unit="episode"):
        if record.images:
            path = output.path / "videos" / condition / f"{record.plan.seed}.mp4"
            # The cameras side by side, (T, H, num_cameras * W, 3).
            frames = np.concatenate([record.images[key] for key in sorted(record.images)], axis=2)
            encode_video(path, frames, fps=tasks.CONTROL_HZ, size=frames.shape[1:3])
        yield replace(record, images={}, columns={})


def rollouts_table(found: Mapping[str, Sequence[EpisodeRecord]], prompts: Mapping[str, str]) -> pa.Table:
    """Return one row per condition and episode: condition, prompt, seed, success, length (frames)."""
    rows = [(name, record) for name, records in found.items() for record in records]
    return pa.table(
        {
            "condition": [name for name, _ in rows],
            "prompt": [prompts[name] for name, _ in rows],
            "seed": [record.plan.seed for _, record in rows],
            "success": [record.success for _, record in rows],
            "length": [record.length for _, record in rows],
        },
        schema=ROLLOUTS,
    )


def success_metrics(found: Mapping[str, Sequence[EpisodeRecord]]) -> dict[str, Any]:
    """Return success rates with 95 % intervals, and paired differences from the first condition.

    Wilson intervals for rates, Newcombe's for differences; every condition saw the same scenes. ``mean_length`` is of
    the successes, frames, null without any.
    """
    outcomes = {name: np.array([record.success for record in records]) for name, records in found.items()}
    measured: dict[str, Any] = {}
    for name, records in found.items():
        rate = wilson(int(outcomes[name].sum()), len(records))
        lengths = [record.length for record in records if record.success]
        measured[name] = {
            "success_rate": rate.estimate,
            "ci_low": rate.low,
            "ci_high": rate.high,
            "n": len(records),
            "mean_length": float(np.mean(lengths)) if lengths else None,
        }
    first, *others = found
    differences = {}
    for other in others:
        gain = newcombe_paired(outcomes[first], outcomes[other])
        differences[f"{first} - {other}"] = {
            "difference": gain.estimate,
            "ci_low": gain.low,
            "ci_high": gain.high,
        }
    return {"conditions": measured, "differences": differences}


def _offline(
    config: Config, facts: acting.PolicyFacts, dataset: Dataset, inputs: Inputs, output: Output
) -> dict[str, int]:
    wanted = [*facts.cameras, *facts.state_keys]
    if missing := sorted(set(wanted) - set(dataset.features)):
        raise UsageError(f"the policy reads {', '.join(missing)}, which the dataset does not have")
    if (facts.action_dim, facts.fps) != (dataset.action_dim, dataset.fps):
        raise UsageError(
            f"the policy makes {facts.action_dim} numbers at {facts.fps:g} Hz, "
            f"the dataset has {dataset.action_dim} at {dataset.fps:g} Hz"
        )
    conditions = conditions_of(config, facts, dataset.tasks[0])
    texts = {c.key: {task: facts.prompt(task, c.label) for task in dataset.tasks} for c in conditions}
    held_out = facts.held_out_episodes
    episodes = offline.held_out_episodes(inputs.one("policy"), inputs.one("dataset"), dataset, held_out)
    rows = offline.rows_to_measure(dataset, episodes, stride=config.stride)
    policy = acting.load_policy(facts)
    asked = []
    for condition in conditions:
        prompts = texts[condition.key]
        actors = {t: acting.actor(policy, prompt=text, guidance=condition.guidance) for t, text in prompts.items()}
        asked.append(offline.Asked(condition.key, prompts, actors))
    tables = offline.measure(
        dataset,
        rows,
        asked,
        keys=wanted,
        image_size=facts.image_size,
        seed=config.seed,
    )
    shown = progress(tables, total=len(rows) * len(asked), what="measure action error", unit="episode")
    errors = pa.concat_tables(shown).sort_by([(k, "ascending") for k in ("condition", "episode_index", "frame_index")])
    schema.write_table(output.path / "offline.parquet", errors)
    output.metrics.update({"mode": "offline", "conditions": offline.error_metrics(errors, seed=config.seed)})
    return {"conditions": len(asked), "episodes": len(rows), "frames": errors.num_rows}
