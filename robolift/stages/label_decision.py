"""Which label each frame gets: its advantage is measured, its group found, and it is ranked there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from robolift import schema
from robolift.errors import DataError, UsageError
from robolift.labeling.advantage import (
    absolute_advantage,
    gae_advantage,
    may_be_ranked,
    nstep_advantage,
    progress_advantage,
)
from robolift.labeling.discretize import Cut, Tie, discretize
from robolift.labeling.kai0 import kai0_stages
from robolift.labeling.population import Reason, label_reasons, population_mask, task_stages
from robolift.labeling.returns import BoolArray, IntArray
from robolift.labeling.summary import NEGATIVE, NONE, POSITIVE
from robolift.stages.label_config import Config, FailureEnd, GroupBy, Source
from robolift.stages.label_sources import Sources


def measure_advantage(config: Config, sources: Sources) -> tuple[npt.NDArray[np.float32], BoolArray]:
    """Return the advantage as it will be stored, (F,), and whether it may be ranked, (F,).

    Ranked is what is stored, so the labels can be made again from the table alone.
    """
    starts, lookahead = sources.dataset.starts, config.lookahead
    everywhere = np.ones(int(starts[-1]), dtype=bool)
    if config.source in (Source.NSTEP, Source.GAE):
        rewards = sources.signal("targets", "reward", source=config.source)
        values = sources.signal("values", "value", source=config.source)
        if config.source == Source.GAE:
            return gae_advantage(rewards, values, starts, gae_lambda=config.gae_lambda).astype(np.float32), everywhere
        advantage = nstep_advantage(rewards, values, starts, lookahead=lookahead)
        excluded = _failure_ends(sources, lookahead) if config.failure_end == FailureEnd.EXCLUDE else ~everywhere
        return advantage.astype(np.float32), ~excluded
    if config.source == Source.COLUMN:
        return sources.column(config.column).astype(np.float32), everywhere
    if config.source == Source.PROGRESS:
        column = sources.column(config.column)
        advantage, valid = progress_advantage(column, starts, lookahead=lookahead, short_tail=config.short_tail)
        return advantage.astype(np.float32), valid
    if config.source == Source.ABSOLUTE_ADVANTAGE and sources.values is not None:
        values = sources.signal("values", "value", source=config.source)
        advantage, valid = absolute_advantage(values, starts, lookahead=lookahead, short_tail=config.short_tail)
        return advantage.astype(np.float32), valid
    return _given_advantage(config, sources), may_be_ranked(starts, lookahead=lookahead, short_tail=config.short_tail)


def _given_advantage(config: Config, sources: Sources) -> npt.NDArray[np.float32]:
    """Return the advantage that a two-frame model, or kai0 in a column of the dataset, has worked out, (F,)."""
    source = config.source
    if sources.values is None and source not in sources.dataset.features:
        raise UsageError(
            f"source {source} needs input values, or a dataset with a column {source}, as kai0 writes it; this one "
            f"has: {', '.join(sorted(sources.dataset.features))}"
        )
    relative = source == Source.RELATIVE_ADVANTAGE
    found = sources.relative_advantage(config.lookahead) if relative else sources.column(source)
    return found.astype(np.float32)


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
        DataError: If the stage progress of a ranked frame is not known or no progress.
    """
    tasks = list(sources.dataset.tasks)
    if config.group_by == GroupBy.ALL:
        return np.where(ranked, 0, -1), ["all"]
    if config.group_by == GroupBy.TASK:
        return np.where(ranked, task, -1), tasks
    num, stage = config.num_task_stages, np.full(len(task), -1)
    progress = sources.stage_progress(config.stage_progress_column, ranked)[ranked]
    found = kai0_stages(progress, num) if config.tie == Tie.KAI0_LEGACY else task_stages(progress, num)
    stage[ranked] = task[ranked] * num + found
    return stage, [f"{name}, stage {number}" for name in tasks for number in range(num)]


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What was decided for each frame; every array is (F,). ``empty`` names the groups without a frame to rank."""

    advantage: npt.NDArray[np.float32]
    valid: BoolArray
    reason: npt.NDArray[np.int8]
    label: npt.NDArray[np.int8]
    slices: npt.NDArray[np.int16]
    group: npt.NDArray[np.int64]
    group_names: list[str]
    cuts: tuple[Cut, ...]
    empty: tuple[str, ...]


def decide(config: Config, sources: Sources, task: IntArray, role: IntArray) -> Decision:
    """Measure, rank and label.

    Raises:
        DataError: If the population is empty or constant, or the advantage of a ranked frame is not a number.
    """
    advantage, valid = measure_advantage(config, sources)
    reason = label_reasons(role, valid, intervention=config.intervention, demo=config.demo)
    scored = reason == Reason.THRESHOLD
    members = population_mask(role, config.population, sources.in_latest_iteration())
    population = valid & members
    _check_population(config, members, population)
    ranked = population | scored
    sources.check_finite(advantage, ranked, what=f"the advantage from {config.source} {config.column}".rstrip())
    group, names = name_groups(config, sources, task, ranked)
    # kai0 pools Python floats without stages and float32 scalars with them, and computes the cut in that precision.
    doubled = config.tie == Tie.KAI0_LEGACY and config.group_by != GroupBy.TASK_STAGE
    found = discretize(
        advantage.astype(np.float64) if doubled else advantage,
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
    present = {cut.group for cut in found.cuts}
    return Decision(
        advantage=advantage,
        valid=valid & np.isfinite(advantage),
        reason=reason,
        label=label,
        slices=slices,
        group=group,
        group_names=names,
        cuts=found.cuts,
        empty=tuple(name for name in names if name not in present),
    )


def _check_population(config: Config, members: BoolArray, population: BoolArray) -> None:
    if population.any():
        return
    if members.any():
        raise DataError(
            f"none of the {int(members.sum())} frames of the population {config.population} may be ranked",
            where=f"every episode ends within {config.lookahead} frames (lookahead)",
            expected=f"frames that short_tail {config.short_tail} and failure_end {config.failure_end} leave",
            mend="choose a shorter lookahead, or another short_tail or failure_end",
        )
    raise DataError(
        f"no frame belongs to the population {config.population}",
        where="frames, column control_mode, and episodes, column kind",
        expected="autonomous frames of rollouts, or the population that was asked for",
        mend="add rollouts, or set population to all and demo to score",
    )
