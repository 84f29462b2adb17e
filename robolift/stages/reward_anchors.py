"""What the shards of a labeller say, put together and checked: anchors, and the episodes it could not label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from robolift import schema, storage
from robolift.annotators.labeller import NOBODY
from robolift.annotators.shard import ANCHORS, ANCHORS_FILE, ERRORS_FILE
from robolift.data.dataset import Dataset
from robolift.errors import DataError
from robolift.labeling.returns import BoolArray, Float64Array, IntArray
from robolift.manifest import Manifest
from robolift.stages.reward_columns import numbers
from robolift.stages.shards import missing_shards, uncut


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What all shards say together.

    Attributes:
        anchors: Table ANCHORS, sorted by keys.
        errors: ``episode_index``, ``class``, ``message`` and ``answers`` of each episode without labels, sorted.
        labelled: Which episodes have labels, (E,). One with an error has none, whatever else was answered.
    """

    anchors: pa.Table
    errors: list[dict[str, Any]]
    labelled: BoolArray

    @property
    def asked(self) -> BoolArray:
        """Which of the anchors :attr:`used` a model was asked about, (A,); of the others it was told the value."""
        episode, asked = (self.anchors.column(name).to_numpy() for name in ("episode_index", "asked"))
        return np.asarray(asked[self.labelled[episode]], dtype=bool)

    @property
    def classes(self) -> dict[str, int]:
        """How many episodes failed by each class of error."""
        return dict(sorted(Counter(str(error["class"]) for error in self.errors).items()))

    def used(self) -> tuple[IntArray, IntArray, dict[str, Float64Array]]:
        """Return episode, frame and the numbers of the anchors of labelled episodes, (A,) each."""
        episode, frame = (self.anchors.column(key).to_numpy() for key in schema.KEYS)
        kept = self.labelled[episode]
        columns = ("score", "progress", "success_prob", "confidence")
        return episode[kept], frame[kept], {name: numbers(self.anchors, name)[kept] for name in columns}


def check_shards(shards: Sequence[Manifest], plan: Manifest, dataset: Manifest) -> None:
    """Check that the shards are the whole of one plan for this dataset.

    Raises:
        DataError: Naming the shard that is of something else, or those that are missing.
    """
    for made in (plan, *shards):
        _check_parent(made, "dataset", dataset)
    for shard in shards:
        _check_parent(shard, "plan", plan)
    first = shards[0]
    for shard in shards:
        if uncut(shard) != uncut(first):
            raise DataError(
                "shards were annotated with different configurations",
                where=f"{first.uri}: {uncut(first)}",
                expected=f"the same for {shard.uri}, which has {uncut(shard)}",
                mend="annotate all shards with one configuration",
            )
    if missing := missing_shards(shards):
        raise DataError(
            f"the shards are not the whole of one annotation: {missing}",
            where=", ".join(sorted({shard.uri.rsplit("/", 1)[0] for shard in shards})),
            expected="every shard, 0 to num_shards - 1, once, all of one num_shards",
            mend="run annotate_rewards for each shard, and give all of them",
        )


def _check_parent(made: Manifest, name: str, expected: Manifest) -> None:
    if made.inputs[name][0].digest != expected.digest:
        raise DataError(
            f"a {made.kind} is of another {name} ({made.inputs[name][0].uri})",
            where=made.uri,
            expected=expected.uri,
            mend="plan and annotate this dataset again, and collect what that gives",
        )


def collect(shards: Sequence[Manifest], dataset: Dataset, *, protocol: str) -> Answers:
    """Read all shards.

    Raises:
        DataError: If an anchor or an error is about no frame of the dataset, a frame stands twice, a number is out of
            range, or an episode has neither labels nor an error though the plan asks somebody.
    """
    tables = [_read(shard.file(ANCHORS_FILE)) for shard in shards]
    anchors = pa.concat_tables(tables).sort_by([(key, "ascending") for key in schema.KEYS]).combine_chunks()
    errors: list[dict[str, Any]] = [error for shard in shards for error in storage.read_json(shard.file(ERRORS_FILE))]
    errors.sort(key=lambda error: int(error["episode_index"]))
    episode, frame = (anchors.column(key).to_numpy() for key in schema.KEYS)
    failed = np.array([error["episode_index"] for error in errors], dtype=np.int64)
    lengths = np.diff(dataset.starts)
    inside = (episode >= 0) & (episode < dataset.num_episodes) & (frame >= 0)
    inside[inside] = frame[inside] < lengths[episode[inside]]
    _refuse(~inside, episode, frame, "anchors are about no frame of the dataset")
    outside = (failed < 0) | (failed >= dataset.num_episodes)
    _refuse(outside, failed, np.zeros_like(failed), "errors are about no episode of the dataset")
    twice = np.append(False, (np.diff(episode) == 0) & (np.diff(frame) == 0))[: len(episode)]
    _refuse(twice, episode, frame, "frames were labelled twice")
    for name in ("progress", "success_prob"):
        values = numbers(anchors, name)
        _refuse((values < 0) | (values > 1), episode, frame, f"anchors have a {name} outside [0, 1]")
    labelled, erring = np.zeros((2, dataset.num_episodes), dtype=bool)
    labelled[episode] = True
    erring[failed] = True
    if protocol != NOBODY:
        silent = np.flatnonzero(~(labelled | erring))
        _refuse(silent >= 0, silent, np.zeros_like(silent), "episodes have neither labels nor an error")
    return Answers(anchors=anchors, errors=errors, labelled=labelled & ~erring)


def _read(uri: str) -> pa.Table:
    table = schema.read_parquet(uri)
    lacking = [name for name in ANCHORS.names if name not in table.column_names]
    if lacking:
        raise DataError(f"column {', '.join(lacking)} is missing", where=uri, expected=str(ANCHORS))
    return table.select(ANCHORS.names).cast(ANCHORS)


def _refuse(wrong: BoolArray, episode: IntArray, frame: IntArray, problem: str) -> None:
    if wrong.any():
        at = int(wrong.argmax())
        raise DataError(
            f"{int(wrong.sum())} {problem}",
            where=f"first: episode {episode[at]}, frame {frame[at]}",
            expected="what annotate_rewards wrote for this dataset",
            mend="annotate this dataset's shards again",
        )
