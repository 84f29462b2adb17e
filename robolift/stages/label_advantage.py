"""Label each frame by its advantage, group by group, and give it the prompt that says so.

recap: N-step advantage of rewards and values, ranked among the autonomous frames of rollouts. kai0's stage advantage:
progress over the lookahead, or a predicted column, ranked among all frames (``population: all``, ``demo: score``,
``intervention: score``).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field, field_validator, model_validator

from robolift import schema
from robolift.errors import DataError, UsageError
from robolift.labeling.advantage import (
    ShortTail,
    gae_advantage,
    nstep_advantage,
    progress_advantage,
    rabc_weights,
)
from robolift.labeling.discretize import Cut, Tie, check_positive_fraction, discretize
from robolift.labeling.population import (
    Population,
    Reason,
    Role,
    Treatment,
    label_reasons,
    population_mask,
    task_stages,
)
from robolift.labeling.prompts import BINARY_LABELS, PromptTable, advantage_prompts, prompt
from robolift.labeling.returns import BoolArray, IntArray
from robolift.labeling.summary import (
    NEGATIVE,
    NONE,
    POSITIVE,
    count_by,
    count_labels,
    describe_cuts,
    failure_tail,
)
from robolift.logging import get_logger
from robolift.manifest import Output
from robolift.schema import Kind
from robolift.stages.label_sources import Sources, codes, strings
from robolift.stages.stage import Input, Inputs, StageConfig

INPUTS = {
    "dataset": Input(kind=Kind.DATASET),
    "targets": Input(kind=Kind.TARGETS, optional=True),
    "values": Input(kind=Kind.VALUES, optional=True),
}
OUTPUT = Kind.LABELS


class Source(enum.StrEnum):
    """Where the advantage comes from."""

    NSTEP = "nstep"
    GAE = "gae"
    PROGRESS = "progress"
    COLUMN = "column"


class GroupBy(enum.StrEnum):
    """Which frames share a cut."""

    ALL = "all"
    TASK = "task"
    TASK_STAGE = "task_stage"


class Scheme(enum.StrEnum):
    """What a label is."""

    BINARY = "binary"
    SLICES = "slices"


class Weight(enum.StrEnum):
    """What the loss weight of a frame is."""

    NONE = "none"
    RABC = "rabc"


class FailureEnd(enum.StrEnum):
    """What becomes of a failure's last frames, where the N-step advantage meets the end of the episode."""

    RANK = "rank"
    EXCLUDE = "exclude"


class Config(StageConfig):
    """Where the advantage comes from, who is ranked among whom, and what a label is."""

    source: Source = Source.NSTEP
    """`nstep`: rewards of the next `lookahead` frames and the change of value (RECAP). `gae`: the same to the end of
    the episode, discounted by `gae_lambda`. `progress`: rise of `column` over the lookahead (kai0). `column`: `column`
    is the advantage."""
    column: str = ""
    """Per-frame column of the values table or the dataset, for `source: progress` and `source: column`."""
    lookahead: int = Field(default=50, ge=1)
    """Frames over which the advantage is measured."""
    gae_lambda: float = Field(default=0.95, gt=0, le=1)
    """Lambda of `source: gae`; 1 is the return of the whole episode."""
    short_tail: ShortTail = ShortTail.SCALE
    """`source: progress`, where fewer than `lookahead` frames are left: `drop` leaves them unlabelled, `scale` scales
    the rise up, `kai0_legacy` repeats kai0's labelling script."""
    positive_fraction: float = 0.3
    """Share of the population labelled positive, in (0, 1)."""
    group_by: GroupBy = GroupBy.TASK
    """Frames that share a cut: `all`, those of a `task`, or those of a `task_stage`."""
    population: Population = Population.ROLLOUT_AUTONOMOUS
    """Frames that set the cut: `rollout_autonomous`, `latest_rollout_autonomous` (newest iteration only), `rollout`
    (with corrections), `all`. Paused frames never do."""
    tie: Tie = Tie.AT_LEAST
    """`at_least`: every frame at the cut is positive. `exact`: exactly the share is; of equal frames the later ones."""
    intervention: Treatment = Treatment.POSITIVE
    """Frames in which a person corrected: `positive` whatever their advantage, or `score` them like the rest."""
    demo: Treatment = Treatment.POSITIVE
    """Frames of demonstrations, likewise."""
    scheme: Scheme = Scheme.BINARY
    """`binary`: positive or negative. `slices`: `num_slices` bins of equal count, each with its prompt."""
    num_slices: int = Field(default=10, ge=2, le=1000)
    """Bins of `scheme: slices`."""
    num_task_stages: int = Field(default=1, ge=1)
    """Equal parts of the stage progress, for `group_by: task_stage`."""
    stage_progress_column: str = "stage_progress_gt"
    """Column with the stage progress in [0, 1], for `group_by: task_stage`."""
    weight: Weight = Weight.NONE
    """Loss weight: `none` is 1 everywhere; `rabc` grows with the rise of `weight_column` over the lookahead (SARM)."""
    weight_column: str = "value"
    """Progress or value for `weight: rabc`, a column of the values table or the dataset."""
    weight_kappa: float = Field(default=0.01, ge=0)
    """Rise above which a frame weighs fully under `weight: rabc`."""
    failure_end: FailureEnd = FailureEnd.RANK
    """`source: nstep`, last `lookahead` frames of failures: `rank` them, or `exclude` them (label none). Exclude where
    failures are episodes whose time ran out: no camera shows the clock, so to the value model the end comes as a
    relief, and frames in which nothing good happened rank high."""
    tail_margin: float = Field(default=0.2, ge=0)
    """Warn when the last `lookahead` frames of failures are more often positive than the frames before by this much."""

    @field_validator("positive_fraction")
    @classmethod
    def _is_share(cls, value: float) -> float:
        try:
            check_positive_fraction(value)
        except UsageError as error:
            raise ValueError(str(error)) from None
        return value

    @model_validator(mode="after")
    def _names_column(self) -> Config:
        if self.source in (Source.PROGRESS, Source.COLUMN) and not self.column:
            raise ValueError(f"source {self.source} needs `column`")
        if self.failure_end == FailureEnd.EXCLUDE and self.source != Source.NSTEP:
            raise ValueError("failure_end exclude is for source nstep")
        if self.group_by == GroupBy.TASK_STAGE and self.num_task_stages < 2:
            raise ValueError("group_by task_stage needs num_task_stages of 2 or more")
        return self

    @property
    def slices(self) -> int | None:
        """Number of slices, None under the binary scheme."""
        return self.num_slices if self.scheme == Scheme.SLICES else None


def measure_advantage(config: Config, sources: Sources) -> tuple[npt.NDArray[np.float32], BoolArray]:
    """Return the advantage as it will be stored, (F,), and whether it may be ranked, (F,).

    Ranked is what is stored, so the labels can be made again from the table alone.
    """
    starts = sources.dataset.starts
    everywhere = np.ones(int(starts[-1]), dtype=bool)
    if config.source in (Source.NSTEP, Source.GAE):
        rewards = sources.signal("targets", "reward", source=config.source)
        values = sources.signal("values", "value", source=config.source)
        if config.source == Source.NSTEP:
            advantage = nstep_advantage(rewards, values, starts, lookahead=config.lookahead)
        else:
            advantage = gae_advantage(rewards, values, starts, gae_lambda=config.gae_lambda)
        excluded = _failure_ends(sources, config.lookahead) if config.failure_end == FailureEnd.EXCLUDE else ~everywhere
        return advantage.astype(np.float32), ~excluded
    column = sources.column(config.column)
    if config.source == Source.COLUMN:
        return column.astype(np.float32), everywhere
    advantage, valid = progress_advantage(column, starts, lookahead=config.lookahead, short_tail=config.short_tail)
    if config.short_tail != ShortTail.KAI0_LEGACY:
        advantage = np.clip(advantage, -1.0, 1.0)
    return advantage.astype(np.float32), valid


def _failure_ends(sources: Sources, lookahead: int) -> BoolArray:
    """Return which frames are among the last ``lookahead`` of a failure, (F,)."""
    starts = sources.dataset.starts
    remaining = np.repeat(starts[1:], np.diff(starts)) - np.arange(int(starts[-1]))
    failed = sources.per_frame("outcome", schema.OUTCOMES) == schema.OUTCOMES.index("failure")
    excluded: BoolArray = failed & (remaining <= lookahead)
    return excluded


def name_groups(
    config: Config, sources: Sources, task: IntArray, ranked: BoolArray
) -> tuple[npt.NDArray[np.int64], list[str]]:
    """Return the group of each frame, (F,), -1 where none is needed, and the names of the groups.

    Raises:
        DataError: If the stage progress of a ranked frame is not known.
    """
    tasks = list(sources.dataset.tasks)
    if config.group_by == GroupBy.ALL:
        return np.where(ranked, 0, -1), ["all"]
    if config.group_by == GroupBy.TASK:
        return np.where(ranked, task, -1), tasks
    column, num = config.stage_progress_column, config.num_task_stages
    progress = sources.column(column)
    sources.check_finite(progress, ranked, what=f"stage progress {column}")
    stage = np.full(len(task), -1)
    stage[ranked] = task[ranked] * num + task_stages(progress[ranked], num)
    return stage, [f"{name}, stage {number}" for name in tasks for number in range(num)]


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What was decided for each frame; every array is (F,)."""

    advantage: npt.NDArray[np.float32]
    valid: BoolArray
    reason: npt.NDArray[np.int8]
    label: npt.NDArray[np.int8]
    slices: npt.NDArray[np.int16]
    group: npt.NDArray[np.int64]
    group_names: list[str]
    cuts: tuple[Cut, ...]


def decide(config: Config, sources: Sources, task: IntArray, role: IntArray) -> Decision:
    """Measure, rank and label.

    Raises:
        DataError: If the population is empty or constant, or the advantage of a ranked frame is not a number.
    """
    advantage, valid = measure_advantage(config, sources)
    reason = label_reasons(role, valid, intervention=config.intervention, demo=config.demo)
    scored = reason == Reason.THRESHOLD
    population = valid & population_mask(role, config.population, sources.in_latest_iteration())
    if not population.any():
        raise DataError(
            f"no frame belongs to the population {config.population}",
            where="frames, column control_mode, and episodes, column kind",
            expected="autonomous frames of rollouts, or the population that was asked for",
            mend="add rollouts, or set population to all and demo to score",
        )
    ranked = population | scored
    sources.check_finite(advantage, ranked, what=f"the advantage from {config.source} {config.column}".rstrip())
    group, names = name_groups(config, sources, task, ranked)
    found = discretize(
        advantage,
        population=population,
        scored=scored,
        group=group,
        group_names=names,
        positive_fraction=config.positive_fraction,
        tie=config.tie,
        num_slices=config.slices,
    )
    forced = (reason == Reason.FORCED_INTERVENTION) | (reason == Reason.DEMO)
    label = np.where(found.positive | forced, POSITIVE, np.where(scored, NEGATIVE, NONE)).astype(np.int8)
    slices = np.where(forced, (config.slices or 0) - 1, found.slices).astype(np.int16)
    valid = valid & np.isfinite(advantage)
    return Decision(
        advantage=advantage,
        valid=valid,
        reason=reason,
        label=label,
        slices=slices,
        group=group,
        group_names=names,
        cuts=found.cuts,
    )


def weigh(config: Config, sources: Sources, role: IntArray) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
    """Return the loss weight of each frame, (F,), and facts about them; a paused frame weighs 0 under ``rabc``."""
    weights, unknown = np.ones(len(role)), 0
    if config.weight == Weight.RABC:
        column, starts = sources.column(config.weight_column), sources.dataset.starts
        weights = rabc_weights(column, starts, lookahead=config.lookahead, kappa=config.weight_kappa)
        weights[role == Role.PAUSED] = 0.0
        unknown = int(np.isnan(column).sum())
    stored = weights.astype(np.float32)
    facts = {
        "scheme": config.weight,
        "mean": float(stored.mean(dtype=np.float64)),
        "zero_share": float((stored == 0).mean()),
        "unknown_progress": unknown,
    }
    return stored, facts


def choose_prompts(
    config: Config, tasks: Sequence[str], task: IntArray, decision: Decision
) -> tuple[npt.NDArray[np.int32], PromptTable]:
    """Return the prompt of each frame, a position in the table, (F,), and the table."""
    table = advantage_prompts(tasks, config.slices)
    names: Sequence[str | int] = BINARY_LABELS if config.slices is None else range(config.slices)
    rows = np.array([[table.index(prompt(text, name)) for name in (None, *names)] for text in tasks], dtype=np.int32)
    binary = np.select([decision.label == NEGATIVE, decision.label == POSITIVE], [1, 2], 0)
    return rows[task, decision.slices + 1 if config.slices else binary], table


def summarize(config: Config, sources: Sources, decision: Decision) -> dict[str, Any]:
    """Return summary.json: the cuts by group, shares by outcome, control mode, iteration and reason, and warnings."""
    dataset, label = sources.dataset, decision.label
    outcome = sources.per_frame("outcome", schema.OUTCOMES)
    mode = codes(dataset.frames.column("control_mode"), schema.CONTROL_MODES)
    iterations, iteration = np.unique(dataset.episodes.column("iteration").to_numpy(), return_inverse=True)
    tail = failure_tail(
        label,
        decision.reason == Reason.THRESHOLD,
        outcome == schema.OUTCOMES.index("failure"),
        dataset.starts,
        lookahead=config.lookahead,
        margin=config.tail_margin,
    )
    return {
        "groups": describe_cuts(decision.cuts),
        "all": count_labels(label),
        "ranked": count_labels(label[decision.reason == Reason.THRESHOLD]),
        "by_outcome": count_by(outcome, schema.OUTCOMES, label),
        "by_control_mode": count_by(mode, schema.CONTROL_MODES, label),
        "by_iteration": count_by(
            np.repeat(iteration, np.diff(dataset.starts)), [str(number) for number in iterations], label
        ),
        "by_reason": count_by(decision.reason, schema.LABEL_REASONS, label),
        "failure_tail": tail,
    }


def run(config: Config, inputs: Inputs, output: Output) -> Mapping[str, int]:
    """Write ``labels.parquet``, ``prompts.json`` and ``summary.json``."""
    sources = Sources.open(inputs)
    dataset = sources.dataset
    task, role = sources.tasks(), sources.roles()
    weights, weight_facts = weigh(config, sources, role)
    decision = decide(config, sources, task, role)
    prompts, table = choose_prompts(config, dataset.tasks, task, decision)
    columns = {
        **{key: dataset.frames.column(key).combine_chunks() for key in schema.KEYS},
        "advantage": pa.array(decision.advantage, mask=~decision.valid),
        "valid": decision.valid,
        "advantage_label": strings(decision.label, schema.ADVANTAGE_LABELS),
        "slice": pa.array(decision.slices, mask=decision.slices < 0),
        "reason": strings(decision.reason, schema.LABEL_REASONS),
        # Position -1 is the last name: empty, for frames that no cut concerns.
        "group": strings(decision.group % (len(decision.group_names) + 1), [*decision.group_names, ""]),
        "weight": weights,
        "prompt_index": prompts,
    }
    output.write_table("labels", columns)
    output.write_json("prompts.json", table.to_dict())
    summary = {**summarize(config, sources, decision), "weight": weight_facts}
    output.write_json("summary.json", summary)
    output.metrics.update({f"positive_share_{part}": summary[part]["positive_share"] for part in ("all", "ranked")})
    output.metrics["failure_tail"] = summary["failure_tail"]
    _tell(summary)
    counts = {name: summary["all"][name] for name in ("frames", *schema.ADVANTAGE_LABELS)}
    return {"episodes": dataset.num_episodes, **counts}


def _tell(summary: Mapping[str, Any]) -> None:
    log = get_logger("label_advantage")
    for name, group in summary["groups"].items():
        log.info("cut", group=name, **{key: group[key] for key in ("n", "cut", "ties", "achieved_share")})
    if summary["failure_tail"]["suspicious"]:
        log.warning(
            "the ends of failed episodes are labelled positive far more often than the rest of them: "
            "check that rewards and value targets agree, and that the value model knows failures",
            **summary["failure_tail"],
        )
