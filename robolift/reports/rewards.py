"""What a page on reward labels rests on: the merged table, the model's and people's, joined to the dataset."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from robolift import schema
from robolift.data.dataset import Dataset
from robolift.manifest import Manifest
from robolift.reports.frames import Codes, codes, same_frames
from robolift.reports.lineage import check_origin

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]

SUCCESS, FAILURE, UNKNOWN = range(len(schema.OUTCOMES))
MODEL, PEOPLE = (schema.REWARD_SOURCES.index(name) for name in ("vlm", "human"))


@dataclass(frozen=True, kw_only=True)
class RewardSources:
    """The outputs of one labelling: ``rewards`` is what would be trained on, the others are what it was made from."""

    dataset: Manifest
    rewards: Manifest
    plan: Manifest | None
    automatic: Manifest | None
    reviews: Manifest | None
    quality: Manifest | None


@dataclass(frozen=True, kw_only=True)
class RewardColumns:
    """A rewards table as arrays (N,), a row for each frame of the dataset; NaN where the table says null.

    Attributes:
        source: Codes into schema.REWARD_SOURCES.
    """

    progress: Floats
    success_prob: Floats
    tri: Floats
    reward: Floats
    anchor: Flags
    source: Codes

    @property
    def is_labelled(self) -> Flags:
        """(N,) whether a model or people said anything about the frame; a recorded outcome is no label."""
        return np.asarray((self.source == MODEL) | (self.source == PEOPLE))


@dataclass(frozen=True, kw_only=True)
class RewardFacts:
    """Everything that is known about each frame and episode; N frames, E episodes.

    Attributes:
        starts: (E + 1,) row offsets of the episodes.
        outcome: (E,) codes into OUTCOMES: as people judged it, else as recorded; ``label_quality`` counts alike.
        recorded: (E,) codes into OUTCOMES, as recorded alone.
        is_correcting: (N,) whether a person was correcting.
        merged: What would be trained on.
        model: What the model says; None when its labels were not given, or it was not asked.
        people: What people say; None when their labels were not given, or nobody labelled.
    """

    dataset: Dataset
    starts: Integers
    outcome: Integers
    recorded: Codes
    is_correcting: Flags
    merged: RewardColumns
    model: RewardColumns | None
    people: RewardColumns | None

    @property
    def num_frames(self) -> int:
        """N."""
        return int(self.starts[-1])

    @property
    def num_episodes(self) -> int:
        """E."""
        return len(self.starts) - 1

    @property
    def judged(self) -> RewardColumns:
        """Whose progress is measured: the model's where it was asked, else what would be trained on."""
        return self.model or self.merged

    def rows(self, episode: int) -> slice:
        """Return the rows of one episode."""
        return slice(int(self.starts[episode]), int(self.starts[episode + 1]))

    def episodes_of(self, outcome: int) -> Integers:
        """Return the episodes that ended so."""
        return np.flatnonzero(self.outcome == outcome)


def load(sources: RewardSources) -> RewardFacts:
    """Read and join the tables.

    Raises:
        DataError: If a table has other frames than the dataset, or the outputs do not belong together.
    """
    for name in ("automatic", "reviews", "quality"):
        check_origin(sources.rewards, name, getattr(sources, name))
    if sources.automatic:
        check_origin(sources.automatic, "plan", sources.plan)
    dataset = Dataset.open(sources.dataset)
    starts = np.asarray(dataset.starts, dtype=np.int64)
    recorded = codes(dataset.episodes.column("outcome"), schema.OUTCOMES)
    people = _someone(dataset, sources.reviews)
    judged = judged_outcome(people, starts) if people else np.full_like(recorded, UNKNOWN)
    control = codes(dataset.frames.column("control_mode"), schema.CONTROL_MODES)
    return RewardFacts(
        dataset=dataset,
        starts=starts,
        outcome=np.where(judged == UNKNOWN, recorded, judged),
        recorded=recorded,
        is_correcting=control == schema.CONTROL_MODES.index("correcting"),
        merged=_columns(dataset, sources.rewards),
        model=_someone(dataset, sources.automatic),
        people=people,
    )


def judged_outcome(people: RewardColumns, starts: Integers) -> Integers:
    """Return how people say each episode ended, (E,) codes into OUTCOMES; unknown where they do not say."""
    last = people.success_prob[starts[1:] - 1]
    return np.select([last >= 0.5, last < 0.5], [SUCCESS, FAILURE], UNKNOWN).astype(np.int64)


def at_ends(values: Floats, starts: Integers) -> Floats:
    """Return the value in the last frame of each episode, (E,)."""
    return values[starts[1:] - 1]


def _someone(dataset: Dataset, made: Manifest | None) -> RewardColumns | None:
    found = _columns(dataset, made) if made else None
    return found if found and found.is_labelled.any() else None


def _columns(dataset: Dataset, made: Manifest) -> RewardColumns:
    table = same_frames(dataset, made, "rewards")
    names = ("progress", "success_prob", "tri", "reward")
    return RewardColumns(
        **{name: _floats(table.column(name)) for name in names},
        anchor=np.asarray(table.column("anchor").to_numpy(), dtype=bool),
        source=codes(table.column("source"), schema.REWARD_SOURCES),
    )


def _floats(column: pa.ChunkedArray) -> Floats:
    return np.asarray(column.cast(pa.float64()).to_numpy(), dtype=np.float64)
