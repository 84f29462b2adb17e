"""Which label each frame gets: its advantage is measured, its group found, and it is ranked there.

All frames are seen three times, some whole episodes at a time. The first pass reads the inputs, measures, checks and
counts; what the other two need of a frame, five bytes or six, waits in a file on the disk of the output. To measure
again would take less room but read every recording three times, which is what labelling costs most.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from robolift.errors import DataError, UsageError
from robolift.labeling.advantage import (
    absolute_advantage,
    gae_advantage,
    may_be_ranked,
    nstep_advantage,
    progress_advantage,
)
from robolift.labeling.cut_rule import CutRule, Tie
from robolift.labeling.discretize import Candidates, Cut, Ranking
from robolift.labeling.kai0 import kai0_stages
from robolift.labeling.population import Reason, label_reasons, population_mask, task_stages
from robolift.labeling.returns import BoolArray, FloatArray, IntArray, frames_to_end
from robolift.labeling.summary import NEGATIVE, NONE, POSITIVE
from robolift.stages.label_block import Block, read_blocks
from robolift.stages.label_config import Config, FailureEnd, GroupBy, Source
from robolift.stages.label_faults import Faults
from robolift.stages.label_sources import Sources
from robolift.stages.label_weights import Weights
from robolift.stages.spool import Spool


def measure_advantage(config: Config, block: Block) -> tuple[npt.NDArray[np.float32], BoolArray]:
    """Return the advantage as it will be stored, (n,), and whether it may be ranked, (n,).

    Ranked is what is stored, so the labels can be made again from the table alone.
    """
    starts, lookahead = block.starts, config.lookahead
    everywhere = np.ones(block.num_frames, dtype=bool)
    if config.source in (Source.NSTEP, Source.GAE):
        rewards = block.signal("targets", "reward", source=config.source)
        values = block.signal("values", "value", source=config.source)
        if config.source == Source.GAE:
            return gae_advantage(rewards, values, starts, gae_lambda=config.gae_lambda).astype(np.float32), everywhere
        advantage = nstep_advantage(rewards, values, starts, lookahead=lookahead)
        excluded = _failure_ends(block, lookahead) if config.failure_end == FailureEnd.EXCLUDE else ~everywhere
        return advantage.astype(np.float32), ~excluded
    if config.source == Source.COLUMN:
        return block.column(config.column).astype(np.float32), everywhere
    if config.source == Source.PROGRESS:
        column = block.column(config.column)
        advantage, valid = progress_advantage(column, starts, lookahead=lookahead, short_tail=config.short_tail)
        return advantage.astype(np.float32), valid
    if config.source == Source.ABSOLUTE_ADVANTAGE and "values" in block.sources.given:
        values = block.signal("values", "value", source=config.source)
        advantage, valid = absolute_advantage(values, starts, lookahead=lookahead, short_tail=config.short_tail)
        return advantage.astype(np.float32), valid
    return _given_advantage(config, block), may_be_ranked(starts, lookahead=lookahead, short_tail=config.short_tail)


def _given_advantage(config: Config, block: Block) -> npt.NDArray[np.float32]:
    """Return the advantage that a two-frame model, or kai0 in a column of the dataset, has worked out, (n,)."""
    source, dataset = config.source, block.sources.dataset
    if "values" not in block.sources.given and source not in dataset.features:
        raise UsageError(
            f"source {source} needs input values, or a dataset with a column {source}, as kai0 writes it; this one "
            f"has: {', '.join(sorted(dataset.features))}"
        )
    return block.column(source).astype(np.float32)


def _failure_ends(block: Block, lookahead: int) -> BoolArray:
    """Return which frames are among the last ``lookahead`` of a failure, (n,)."""
    excluded: BoolArray = block.per_frame(block.sources.is_failure) & (frames_to_end(block.starts) < lookahead)
    return excluded


@dataclass(frozen=True, kw_only=True)
class Decided:
    """What was decided for the frames of some whole episodes; every array is (n,).

    Attributes:
        episodes: Which episodes.
        starts: Offsets of the episodes in the block.
        advantage: A.
        valid: Whether A may be ranked and is a number.
        reason: A :class:`Reason`.
        label: Code of the label.
        slices: Slice, -1 for none.
        group: Number of the group, -1 where no cut concerns the frame.
        mode: Position of the control mode in ``schema.CONTROL_MODES``.
    """

    episodes: range
    starts: npt.NDArray[np.int64]
    advantage: npt.NDArray[np.float32]
    valid: BoolArray
    reason: IntArray
    label: npt.NDArray[np.int8]
    slices: npt.NDArray[np.int16]
    group: IntArray
    mode: IntArray


class Decision:
    """The labels of all frames: :meth:`rank` them, then read :meth:`blocks`, then :meth:`cuts`; close it in the end.

    Attributes:
        group_names: Names of all groups, those without a frame too.
        weights: Weights of the frames, to be read along with the labels.
    """

    def __init__(self, config: Config, sources: Sources, folder: Path | None = None) -> None:
        """Name the groups.

        Args:
            config: How it is decided.
            sources: What is labelled.
            folder: Where what has to wait is put; the system's folder of temporary files by default.
        """
        self._config, self._sources = config, sources
        tasks, stages = list(sources.dataset.tasks), range(config.num_task_stages)
        self.group_names = {
            GroupBy.ALL: ["all"],
            GroupBy.TASK: tasks,
            GroupBy.TASK_STAGE: [f"{name}, stage {number}" for name in tasks for number in stages],
        }[config.group_by]
        # kai0 pools Python floats without stages and float32 scalars with them, and computes the cut in that precision.
        rule = CutRule(
            positive_fraction=config.positive_fraction,
            tie=config.tie,
            num_slices=config.slices,
            kai0_single=config.group_by == GroupBy.TASK_STAGE,
        )
        self._ranking = Ranking(rule, self.group_names)
        self._waiting = Spool(folder)
        self.weights = Weights(config, folder)

    def rank(self) -> None:
        """Measure all frames and find the cuts: the first two passes.

        Raises:
            DataError: If the population is empty or constant, or the advantage of a ranked frame is not a number.
        """
        self._measure()
        self._ranking.seek()
        for frames in self.candidates():
            self._ranking.refine(frames)
        self._ranking.decide()
        self.weights.settle()

    def _measure(self) -> None:
        """First pass: read, measure, check, count, and keep what is needed again."""
        config, faults = self._config, Faults()
        self._num_members = self._num_population = 0
        if config.source == Source.RELATIVE_ADVANTAGE:
            self._sources.check_relative_advantage(config.lookahead)
        for block in read_blocks(self._sources, faults):
            self.weights.measure(block)
            advantage, valid = measure_advantage(config, block)
            mode = block.modes()
            role = block.roles(mode)
            reason = label_reasons(role, valid, intervention=config.intervention, demo=config.demo)
            scored = reason == Reason.THRESHOLD
            members = population_mask(role, config.population, block.per_frame(self._sources.is_latest))
            population = valid & members
            ranked = population | scored
            block.check_finite(advantage, ranked, what=f"the advantage from {config.source} {config.column}".rstrip())
            stage = self._stages(block, ranked, faults)
            self._num_members += int(members.sum())
            self._num_population += int(population.sum())
            if not faults.found:
                facts = _pack(reason=reason, valid=valid, population=population, mode=mode)
                self._waiting.add(advantage, facts, *stage)
                self._ranking.count(self._candidates(block.episodes, advantage, facts, *stage))
        self._check_population()
        faults.complain()

    def _stages(self, block: Block, ranked: BoolArray, faults: Faults) -> list[npt.NDArray[Any]]:
        """Return the task stage of each ranked frame, 0 elsewhere, (n,), if groups ask for it; else nothing."""
        config = self._config
        if config.group_by != GroupBy.TASK_STAGE:
            return []
        progress = block.stage_progress(config.stage_progress_column, ranked)
        if faults.found:
            return []
        stage = np.zeros(block.num_frames, np.min_scalar_type(config.num_task_stages))
        rule = kai0_stages if config.tie == Tie.KAI0_LEGACY else task_stages
        stage[ranked] = rule(progress[ranked], config.num_task_stages)
        return [stage]

    def _check_population(self) -> None:
        config = self._config
        if self._num_population:
            return
        if self._num_members:
            raise DataError(
                f"none of the {self._num_members} frames of the population {config.population} may be ranked",
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

    def _candidates(
        self, episodes: range, advantage: FloatArray, facts: npt.NDArray[np.uint8], *stage: npt.NDArray[Any]
    ) -> Candidates:
        scored, population = _reason(facts) == Reason.THRESHOLD, _flag(facts, POPULATION)
        group = np.zeros(len(advantage), np.int64)
        if self._config.group_by != GroupBy.ALL:
            starts = self._sources.dataset.starts[episodes.start : episodes.stop + 1]
            group = np.repeat(self._sources.task[episodes.start : episodes.stop], np.diff(starts))
        if stage:
            group = group * self._config.num_task_stages + stage[0]
        group[~(scored | population)] = -1
        return Candidates(advantage=advantage, population=population, scored=scored, group=group)

    def candidates(self) -> Iterator[Candidates]:
        """Yield what the frames of each block are ranked by, as often as needed."""
        for episodes, (advantage, facts, *stage) in zip(
            self._sources.episode_blocks(), self._waiting.read(), strict=True
        ):
            yield self._candidates(episodes, advantage, facts, *stage)

    def blocks(self) -> Iterator[Decided]:
        """Last pass, made once: yield what was decided of each block."""
        starts = self._sources.dataset.starts
        for episodes, (advantage, facts, *stage) in zip(
            self._sources.episode_blocks(), self._waiting.read(), strict=True
        ):
            frames = self._candidates(episodes, advantage, facts, *stage)
            positive, slices = self._ranking.label(frames)
            reason = _reason(facts)
            forced = (reason == Reason.FORCED_INTERVENTION) | (reason == Reason.DEMO)
            label = np.where(positive | forced, POSITIVE, np.where(frames.scored, NEGATIVE, NONE)).astype(np.int8)
            yield Decided(
                episodes=episodes,
                starts=starts[episodes.start : episodes.stop + 1] - starts[episodes.start],
                advantage=advantage,
                valid=_flag(facts, VALID) & np.isfinite(advantage),
                reason=reason,
                label=label,
                slices=np.where(forced, (self._config.slices or 0) - 1, slices).astype(np.int16),
                group=frames.group,
                mode=facts >> MODE,
            )

    def cuts(self) -> tuple[Cut, ...]:
        """Return the cut of each group that has frames to rank, once all blocks are read."""
        return self._ranking.cuts()

    def close(self) -> None:
        """Give back the room on the disk."""
        self._waiting.close()
        self.weights.close()


# One byte a frame: reason in bits 0 and 1, then whether it is valid and in the population, then the control mode.
VALID, POPULATION, MODE = 2, 3, 4


def _pack(
    *, reason: npt.NDArray[np.int8], valid: BoolArray, population: BoolArray, mode: npt.NDArray[np.int64]
) -> npt.NDArray[np.uint8]:
    flags = (valid.astype(np.uint8) << VALID) | (population.astype(np.uint8) << POPULATION)
    facts = reason.astype(np.uint8) | flags | (mode.astype(np.uint8) << MODE)
    return facts.astype(np.uint8)


def _reason(facts: npt.NDArray[np.uint8]) -> IntArray:
    reason: IntArray = facts & 3
    return reason


def _flag(facts: npt.NDArray[np.uint8], bit: int) -> BoolArray:
    return (facts >> bit & 1).astype(np.bool_)
