"""What people are asked, of which dataset and by which rules: written once into the labels folder, then agreed to."""

from __future__ import annotations

import csv
import io
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from robolift import storage
from robolift.annotators.review.events import ITEM
from robolift.annotators.review.fold import EMPTY, State
from robolift.data.dataset import Dataset, Source
from robolift.errors import DataError, UsageError

JOB_FILE = "job.json"
GOLD_FILE = "gold.json"
PAIRS_FILE = "pairs.csv"
Ask = Literal["segments", "frames", "outcome", "stages"]


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class SourceDigest(_Document):
    """One LeRobot source of the dataset: what it held and how many episodes."""

    digest: str
    episodes: int


class Job(_Document):
    """``job.json``."""

    dataset: tuple[SourceDigest, ...]
    """Sources of the dataset when the work began; a dataset that only grew since is still the same job's."""
    ask: tuple[Ask, ...] = ("segments", "outcome")
    """What is asked of an episode; empty: only pairs are shown."""
    num_task_stages: int = Field(default=1, ge=1, le=100, validate_default=True)
    """Stages that ``stages`` divides an episode into."""
    overlap: float = Field(default=0.15, ge=0, le=1)
    """Share of the items that several people label."""
    annotators_per_item: int = Field(default=2, ge=1)
    """How many people label such an item; any other is labelled once."""
    gold_rate: float = Field(default=0.1, ge=0, le=1)
    """Share of what each person is offered that comes from the gold items, while there are any."""
    blind: bool = True
    """Whether the labels of models stay hidden until a person is done with an item."""
    lease_s: int = Field(default=600, ge=5)
    """How long an item is kept for a person who does nothing."""
    seed: int = 0
    """Decides which items overlap, where gold comes, and which clip of a pair is shown first."""

    @field_validator("num_task_stages")
    @classmethod
    def _several_stages(cls, value: int, info: ValidationInfo) -> int:
        # One stage has no boundary: a person would only press Enter, and a clock's t / T would count as their progress.
        if value < 2 and "stages" in info.data.get("ask", ()):
            raise ValueError("stages are asked, which takes at least 2")
        return value

    def missing(self, item: str, state: State) -> str | None:
        """Return what a person has still to say before an item is complete, None if nothing."""
        if item.startswith("pair:"):
            return None if state.preference else "no clip is preferred, nor a tie"
        for name, asked, values in (("segments", "painted", state.tri), ("frames", "rewarded", state.frames)):
            if name in self.ask and (values == EMPTY).any():
                return f"frame {int(np.argmax(values == EMPTY))} is not {asked}"
        if "outcome" in self.ask and state.outcome is None:
            return "the outcome is not said"
        count, wanted = len(state.boundaries), self.num_task_stages - 1
        failed = state.outcome is not None and state.outcome[0] == "failure"
        if "stages" in self.ask and not failed and len(state.tri) < self.num_task_stages:
            return f"{len(state.tri)} frames can't hold {self.num_task_stages} stages; skip the episode"
        if "stages" in self.ask and (count > wanted or (count < wanted and not failed) or 0 in state.boundaries):
            return f"boundaries are {list(state.boundaries)}, {self.num_task_stages} stages need {wanted} after frame 0"
        return None


class Gold(_Document):
    """The right answer to one item, against which people are measured; never shown."""

    outcome: Literal["success", "failure"] | None = None
    tri: tuple[tuple[int, int, Literal[-1, 0, 1]], ...] = ()
    stages: tuple[int, ...] | None = None
    prefer: Literal["A", "B", "tie"] | None = None


class Clip(_Document):
    """Some consecutive frames of an episode."""

    episode: int = Field(ge=0)
    start: int = Field(ge=0)
    stop: int

    @model_validator(mode="after")
    def _forward(self) -> Clip:
        if self.stop <= self.start:
            raise ValueError(f"frames {self.start} to {self.stop} are no clip")
        return self


class Pair(_Document):
    """Two clips to compare.

    Attributes:
        ids: What the clips are called elsewhere (``clip_a_id``, ``clip_b_id``).
    """

    pair_id: str
    a: Clip
    b: Clip
    ids: tuple[str, str]


def sources_of(dataset: Dataset) -> tuple[SourceDigest, ...]:
    """Return what identifies the content of a dataset, source by source."""
    return tuple(_digest(source) for source in dataset.sources)


def _digest(source: Source) -> SourceDigest:
    return SourceDigest(digest=source.digest, episodes=source.num_episodes)


def check_dataset(job: Job, dataset: Dataset, *, where: str) -> None:
    """Check that the work was done on this dataset, or on its beginning before it grew.

    Raises:
        DataError: If it was done on another one.
    """
    present = sources_of(dataset)
    if not job.dataset or present[: len(job.dataset)] != job.dataset:
        raise DataError(
            "this is the work on another dataset",
            where=where,
            expected=", ".join(source.digest for source in present),
            mend="give the dataset that was labelled, or another labels folder",
        )


def settle(labels: str, job: Job, dataset: Dataset) -> Job:
    """Write the job at the first start, and hold a later start to it.

    Returns:
        The job that the folder has.

    Raises:
        UsageError: If the folder's job has another rule.
        DataError: If it is of another dataset or unreadable.
    """
    _check_store(labels)
    uri = storage.join(labels, JOB_FILE)
    if storage.create_exclusive(uri, storage.to_json_bytes(job.model_dump(mode="json"))):
        return job
    found = read_job(labels)
    check_dataset(found, dataset, where=uri)
    wrong = [
        f"{name} is {getattr(found, name)!r} there, {getattr(job, name)!r} here"
        for name in Job.model_fields
        if name != "dataset" and getattr(found, name) != getattr(job, name)
    ]
    if wrong:
        raise UsageError(f"{uri}: {'; '.join(wrong)}; give the same options as before, or another labels folder")
    return found


def _check_store(labels: str) -> None:
    """Check that of two writers of one name the second fails: leases hang on it, and some servers ignore the condition.

    Raises:
        UsageError: If both succeed.
    """
    probe = storage.join(labels, f".probe-{secrets.token_hex(8)}")
    storage.create_exclusive(probe, b"1")
    again = storage.create_exclusive(probe, b"2")
    storage.remove(probe)
    if again:
        raise UsageError(
            f"{labels}: this store overwrites what is to be created once (it ignores If-None-Match), so two people "
            "could be given one item; use a disk, Amazon S3, Google Cloud Storage or a newer server"
        )


def read_job(labels: str) -> Job:
    """Read ``job.json``.

    Raises:
        DataError: If it is missing or not as written.
    """
    uri = storage.join(labels, JOB_FILE)
    try:
        return Job.model_validate(storage.read_json(uri))
    except ValidationError as error:
        raise DataError(f"not a labelling job: {error}", where=uri, mend="restore the file") from None


def keep(labels: str, name: str, content: bytes) -> None:
    """Store a file of the job at the first start, and hold later ones to it.

    Raises:
        UsageError: If the folder has another one.
    """
    uri = storage.join(labels, name)
    if not storage.create_exclusive(uri, content) and storage.read_bytes(uri) != content:
        raise UsageError(f"{uri} differs from what is given now; give the same, or another labels folder")


def read_gold(uri: str, lengths: Sequence[int]) -> dict[str, Gold]:
    """Read items with known answers; empty where there is no such file.

    Raises:
        DataError: If an entry is not as expected, or speaks of frames that are not there.
    """
    if not storage.exists(uri):
        return {}
    try:
        found = TypeAdapter(dict[str, Gold]).validate_python(storage.read_json(uri))
    except ValidationError as error:
        raise DataError(f"not gold items: {error}", where=uri, expected='{"episode:3": {"outcome": ...}}') from None
    for item, gold in found.items():
        match = ITEM.fullmatch(item)
        length = 0
        if match and match[1]:
            length = int(lengths[int(match[1])]) if int(match[1]) < len(lengths) else -1
        inside = all(0 <= start < stop <= length for start, stop, _ in gold.tri)
        inside &= all(0 < frame < length for frame in gold.stages or ())
        if match is None or length < 0 or not inside:
            raise DataError(
                f"gold item {item!r} speaks of what is not there", where=uri, expected="episodes and frames in range"
            )
    return found


def read_pairs(uri: str, lengths: Sequence[int]) -> dict[str, Pair]:
    """Read pairs of clips to compare, by pair id, in the file's order; empty where there is no such file.

    Args:
        uri: CSV with the columns pair_id, episode_a, start_a, stop_a, episode_b, start_b, stop_b and perhaps clip_a_id
            and clip_b_id.
        lengths: Frames of each episode.

    Raises:
        DataError: Naming the line that is wrong.
    """
    if not storage.exists(uri):
        return {}
    try:
        rows = list(csv.DictReader(io.StringIO(storage.read_bytes(uri).decode("utf-8-sig"))))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"not a CSV file: {error}", where=uri, mend="write the file again") from None
    pairs: dict[str, Pair] = {}
    for line, row in enumerate(rows, start=2):
        try:
            pair = _pair(row, lengths)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"not a pair of clips: {error}",
                where=f"{uri}, line {line}",
                expected="pair_id,episode_a,start_a,stop_a,episode_b,start_b,stop_b",
            ) from None
        if pair.pair_id in pairs:
            raise DataError(f"pair {pair.pair_id} stands twice", where=f"{uri}, line {line}", expected="one line each")
        pairs[pair.pair_id] = pair
    return pairs


def _pair(row: Mapping[str, Any], lengths: Sequence[int]) -> Pair:
    clips = {}
    for side in "ab":
        clip = Clip.model_validate({key: row[f"{key}_{side}"] for key in ("episode", "start", "stop")})
        if clip.episode >= len(lengths) or clip.stop > lengths[clip.episode]:
            raise ValueError(f"episode {clip.episode} has no frames {clip.start} to {clip.stop}")
        clips[side] = clip
    if not ITEM.fullmatch(f"pair:{row['pair_id']}"):
        raise ValueError(
            f"pair_id is {row['pair_id']!r}, expected 1 to 64 letters, digits, dots, dashes or underscores"
        )
    ids = tuple(row.get(f"clip_{side}_id") or _name(clips[side]) for side in "ab")
    return Pair(pair_id=row["pair_id"], a=clips["a"], b=clips["b"], ids=(ids[0], ids[1]))


def _name(clip: Clip) -> str:
    return f"{clip.episode}_{clip.start}_{clip.stop}"
