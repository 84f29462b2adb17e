"""What people are asked, of which dataset and by which rules: written once into the labels folder, then agreed to."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from robolift import exclusive, storage
from robolift.annotators.review.events import ITEM
from robolift.annotators.review.fold import EMPTY, State
from robolift.data.dataset import Dataset, Source
from robolift.errors import DataError, UsageError

JOB_FILE = "job.json"
GOLD_FILE = "gold.json"
PAIRS_FILE = "pairs.csv"
Ask = Literal["segments", "frames", "outcome", "stages"]


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SourceDigest(_Document):
    """One LeRobot source of the dataset: what it held and how many episodes."""

    digest: str
    episodes: int


class Job(_Document):
    """``job.json``."""

    dataset: tuple[SourceDigest, ...] = ()
    """Sources of the dataset when the work began; a dataset that only grew since is still the same job's."""
    clips: str = ""
    """Digest of the clips that are compared, where the work is on clips and no dataset."""
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


def sources_of(dataset: Dataset) -> tuple[SourceDigest, ...]:
    """Return what identifies the content of a dataset, source by source."""
    return tuple(_digest(source) for source in dataset.sources)


def _digest(source: Source) -> SourceDigest:
    return SourceDigest(digest=source.digest, episodes=source.num_episodes)


def check_dataset(job: Job, dataset: Dataset, *, where: str) -> None:
    """Check that the work was done on this dataset, or on its beginning before it grew.

    Raises:
        DataError: If it was done on another one, or on clips.
    """
    _check_subject(job, Job(dataset=sources_of(dataset)), where=where)


def _check_subject(job: Job, present: Job, *, where: str) -> None:
    same_sources = bool(job.dataset) and present.dataset[: len(job.dataset)] == job.dataset
    if job.clips != present.clips or not (job.clips or same_sources):
        raise DataError(
            f"this is the work on {'other clips' if job.clips else 'another dataset'}",
            where=where,
            expected=present.clips or ", ".join(source.digest for source in present.dataset),
            mend="give what the work was on, or another labels folder",
        )


def settle(labels: str, job: Job) -> Job:
    """Write the job at the first start, and hold a later start to it.

    Returns:
        The job that the folder has.

    Raises:
        UsageError: If the folder's job has another rule.
        DataError: If it is of another dataset or other clips, or unreadable.
    """
    _check_store(labels)
    uri = storage.join(labels, JOB_FILE)
    if exclusive.create(uri, storage.to_json_bytes(job.model_dump(mode="json"))):
        return job
    found = read_job(labels)
    _check_subject(found, job, where=uri)
    wrong = [
        f"{name} is {getattr(found, name)!r} there, {getattr(job, name)!r} here"
        for name in Job.model_fields
        if name not in ("dataset", "clips") and getattr(found, name) != getattr(job, name)
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
    exclusive.create(probe, b"1")
    again = exclusive.create(probe, b"2")
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
    if not exclusive.create(uri, content) and storage.read_bytes(uri) != content:
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
