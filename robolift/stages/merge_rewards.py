"""Lay people's labels over the model's and derive the reward: one table that says of each row who said it."""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from robolift import schema
from robolift.data.dataset import Dataset
from robolift.data.same_frames import check_keys
from robolift.labeling.numpy_sum import pairwise_sum
from robolift.labeling.returns import BoolArray, Float64Array, IntArray
from robolift.labeling.rewards import Reward, derive_reward
from robolift.logging import get_logger
from robolift.manifest import Manifest, Output
from robolift.schema import Kind
from robolift.stages.label_sources import check_origin
from robolift.stages.quality_gate import check_measured, check_passed
from robolift.stages.reward_columns import numbers, reward_rows, source_code, spoken
from robolift.stages.spool import Spool
from robolift.stages.stage import Input, Inputs, StageConfig
from robolift.table_files import TableReader, episode_blocks

INPUTS = {
    "dataset": Input(kind=Kind.DATASET),
    "automatic": Input(kind=Kind.REWARDS),
    "reviews": Input(kind=Kind.REWARDS),
    "quality": Input(kind=Kind.QUALITY, optional=True),
}
OUTPUT = Kind.REWARDS
SHARED = ("progress", "success_prob")
"""What both may know: people's word counts."""
BY_RANK = ("human", "vlm", "heuristic")
"""Whose name a row carries: the first of these who said anything about it, be it only how its episode ended."""
OF_PEOPLE = ("tri", "stage")
OF_A_FRAME = ("progress", "tri")
"""Where people said one of these, confidence and anchor are theirs; how an episode ended says nothing of a frame."""


class Config(StageConfig):
    """Whose word counts, and what the reward is."""

    reward: Literal["difference", "sparse_success", "level", "tri", "human"] = "difference"
    """`difference`: progress gained by the next frame, 0 in the last. `sparse_success`: 1 in the last frame of a
    success, else 0. `level`: progress itself. `tri`: people's -1, 0, +1. `human`: the reward that people marked."""
    success_threshold: float = Field(default=0.5, ge=0, le=1)
    """Success probability from which `sparse_success` counts an episode as one."""
    use_outcome: bool = True
    """Whether a recorded outcome counts where people did not say how an episode ended, before what the model says."""
    quality_gate: bool = True
    """Whether labels that `label_quality` did not pass are refused."""


def run(config: Config, inputs: Inputs, output: Output) -> Mapping[str, int]:
    """Write ``rewards.parquet``, a row for every frame."""
    automatic, reviews, quality = inputs.one("automatic"), inputs.one("reviews"), inputs.get_one("quality")
    if quality:
        labels = {"automatic": automatic.digest, "reviews": reviews.digest}
        check_measured(quality, labels, where=f"{automatic.uri}, {reviews.uri}")
        if config.quality_gate:
            check_passed(quality)
    dataset = Dataset.open(inputs.one("dataset"))
    for name, made in (("automatic", automatic), ("reviews", reviews)):
        check_origin(made, inputs.one("dataset"), name)
    # People's own marks are what `human` is made from.
    of_a_frame = (*OF_A_FRAME, "reward") if config.reward == "human" else OF_A_FRAME
    counted: list[dict[str, Any]] = []
    rows: Counter[str] = Counter({f"rows_{name}": 0 for name in schema.REWARD_SOURCES})
    with closing(_Known(output.path)) as known, output.open_table("rewards") as table:
        for block in read_blocks(dataset, automatic, reviews):
            merged = merge(block, use_outcome=config.use_outcome, of_a_frame=of_a_frame)
            reward = _reward(config, block, merged)
            table.add(reward_rows(block.keys, merged.source, merged.anchor, {**merged.known, "reward": reward}))
            known.add(reward[~np.isnan(reward)])
            counted.append(compare(merged, block, success_threshold=config.success_threshold))
            counted[-1]["contradictions"] = contradictions(block, success_threshold=config.success_threshold)
            for name in schema.REWARD_SOURCES:
                rows[f"rows_{name}"] += int((merged.source == source_code(name)).sum())
        described = known.describe(dataset.num_frames)
    if not described["known_share"]:
        get_logger("merge_rewards").warning("no frame has a reward: nobody said what it is made from", of=config.reward)
    totals = functools.reduce(added, counted)
    output.metrics.update(totals)
    output.metrics["reward"] = described
    return {"episodes": dataset.num_episodes, "frames": dataset.num_frames, **rows}


@dataclass(frozen=True, kw_only=True)
class Block:
    """Some whole episodes, F frames, and what was said of them.

    Attributes:
        keys: Their keys.
        starts: Offsets of the episodes, (E + 1,).
        recorded: 1 for each success, 0 for each failure and NaN for each unknown outcome, (E,).
        model: Their rows of the model's rewards.
        people: Their rows of people's rewards.
    """

    keys: Mapping[str, IntArray]
    starts: IntArray
    recorded: Float64Array
    model: pa.Table
    people: pa.Table


def read_blocks(dataset: Dataset, automatic: Manifest, reviews: Manifest) -> Iterator[Block]:
    """Yield the episodes of the dataset in order, with their rows of both reward tables.

    Raises:
        DataError: If a table has other frames.
    """
    recorded = _recorded(dataset)
    with TableReader(automatic.uri, "rewards") as model, TableReader(reviews.uri, "rewards") as people:
        for table in (model, people):
            if table.num_rows != dataset.num_frames:
                check_keys(table.read(0, table.num_rows), dataset, where=table.uri)
        for episodes in episode_blocks(dataset.starts):
            first, end = (int(dataset.starts[episode]) for episode in (episodes.start, episodes.stop))
            rows = [table.read(first, end) for table in (model, people)]
            for table, some in zip((model, people), rows, strict=True):
                check_keys(some, dataset, where=table.uri, first=first, end=end, num_rows=table.num_rows)
            yield Block(
                keys=dataset.keys(first, end),
                starts=dataset.starts[episodes.start : episodes.stop + 1] - first,
                recorded=recorded[episodes.start : episodes.stop],
                model=rows[0],
                people=rows[1],
            )


def _reward(config: Config, block: Block, merged: Merged) -> Float64Array:
    """Return the reward of each frame of a block, (F,)."""
    return derive_reward(
        Reward(config.reward),
        block.starts,
        progress=merged.known["progress"],
        success_prob=merged.known["success_prob"],
        tri=merged.known["tri"],
        human=numbers(block.people, "reward"),
        success_threshold=config.success_threshold,
    )


@dataclass(frozen=True, kw_only=True)
class Merged:
    """Everything known about each frame, (F,) each.

    Attributes:
        known: By column, NaN where not known.
        source: The first of BY_RANK who said anything about the row, a position in REWARD_SOURCES.
        anchor: Rows about which people, where they spoke of the frame itself, else the model were really asked.
        outcome: Rows whose success_prob is the recorded outcome.
    """

    known: dict[str, Float64Array]
    source: IntArray
    anchor: BoolArray
    outcome: BoolArray


def merge(block: Block, *, use_outcome: bool, of_a_frame: Sequence[str] = OF_A_FRAME) -> Merged:
    """Take each field from people, else from the model; success from people, else as recorded, else from the model.

    Confidence and anchor are people's where they said one of ``of_a_frame``, else the model's.
    """
    model, people = block.model, block.people
    known = {name: numbers(people, name) for name in OF_PEOPLE}
    for name in SHARED:
        said, guessed = numbers(people, name), numbers(model, name)
        known[name] = np.where(np.isnan(said), guessed, said)
    recorded = np.repeat(block.recorded, np.diff(block.starts))
    outcome: BoolArray = np.isnan(numbers(people, "success_prob")) & ~np.isnan(recorded) & use_outcome
    known["success_prob"] = np.where(outcome, recorded, known["success_prob"])
    by_people, by_model = (spoken(table) for table in (people, model))
    theirs = np.any([~np.isnan(numbers(people, name)) for name in of_a_frame], axis=0)
    known["confidence"] = np.where(theirs, numbers(people, "confidence"), numbers(model, "confidence"))
    return Merged(
        known=known,
        source=np.select([by_people, by_model, outcome], list(map(source_code, BY_RANK)), source_code("none")),
        anchor=np.where(theirs, people.column("anchor").to_numpy(), model.column("anchor").to_numpy()),
        outcome=outcome,
    )


def _recorded(dataset: Dataset) -> Float64Array:
    """Return 1 for each success, 0 for each failure and NaN for each unknown outcome, (E,)."""
    outcome = np.array(dataset.episodes.column("outcome").to_pylist(), dtype=str)
    return np.select([outcome == "success", outcome == "failure"], [1.0, 0.0], np.nan)


def compare(merged: Merged, block: Block, *, success_threshold: float) -> dict[str, Any]:
    """Return how many rows of each field came from whom, and how many differ from what the model said.

    A row is ``changed`` where the model said something else (of success: where it lies on the other side of the
    threshold), and ``added`` where it said nothing.
    """
    rows: dict[str, Any] = {}
    against: dict[str, Any] = {}
    for name in ("progress", "success_prob"):
        final, guessed = merged.known[name], numbers(block.model, name)
        said = ~np.isnan(numbers(block.people, name))
        from_outcome = merged.outcome & (name == "success_prob")
        differs = final != guessed
        if name == "success_prob":
            differs = (final >= success_threshold) != (guessed >= success_threshold)
        rows[name] = {
            "human": int(said.sum()),
            "vlm": int((~said & ~from_outcome & ~np.isnan(guessed)).sum()),
            "heuristic": int(from_outcome.sum()),
            "none": int(np.isnan(final).sum()),
        }
        against[name] = {
            "changed": int((~np.isnan(guessed) & differs).sum()),
            "added": int((np.isnan(guessed) & ~np.isnan(final)).sum()),
        }
    for name in OF_PEOPLE:
        rows[name] = {"human": int((~np.isnan(merged.known[name])).sum())}
    return {"rows": rows, "against_model": against}


def contradictions(block: Block, *, success_threshold: float) -> dict[str, dict[str, int]]:
    """Return of each two that say how episodes ended: of how many both do, and of how many they say the opposite."""
    ends = block.starts[1:] - 1
    said = {"recorded": block.recorded}
    for name, table in (("human", block.people), ("vlm", block.model)):
        stated = numbers(table, "success_prob")[ends]
        said[name] = np.where(np.isnan(stated), np.nan, stated >= success_threshold)
    found = {}
    for one, other in combinations(("human", "recorded", "vlm"), 2):
        both = ~np.isnan(said[one]) & ~np.isnan(said[other])
        opposite = int((said[one] != said[other])[both].sum())
        found[f"{one}_{other}"] = {"episodes": int(both.sum()), "opposite": opposite}
    return found


def added(counts: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """Return the sums of two nested dictionaries of counts with the same keys."""
    return {
        name: added(count, more[name]) if isinstance(count, dict) else count + more[name]
        for name, count in counts.items()
    }


class _Known:
    """What the rewards that are known are like; they wait on the disk, for their mean is that of one array."""

    def __init__(self, folder: Path) -> None:
        self._waiting = Spool(folder)
        self._count = self._nonzero = 0
        self._least, self._most = math.inf, -math.inf

    def add(self, rewards: Float64Array) -> None:
        if len(rewards):
            self._waiting.add(rewards)
            self._count += len(rewards)
            self._nonzero += int((rewards != 0).sum())
            self._least = min(self._least, float(rewards.min()))
            self._most = max(self._most, float(rewards.max()))

    def describe(self, num_frames: int) -> dict[str, Any]:
        if not self._count:
            return {"known_share": 0.0}
        total = pairwise_sum((block[0] for block in self._waiting.read()), self._count)
        return {
            "known_share": self._count / num_frames,
            "nonzero_share": self._nonzero / self._count,
            "min": self._least,
            "mean": total / self._count,
            "max": self._most,
        }

    def close(self) -> None:
        self._waiting.close()
