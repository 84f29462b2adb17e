"""Pairs of things to compare, as a CSV names them."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, model_validator

from robolift import storage
from robolift.annotators.review.events import ITEM
from robolift.errors import DataError

Side = Literal["a", "b"]


class Excerpt(BaseModel):
    """Some consecutive frames of an episode or a clip.

    Attributes:
        number: Which one.
        start: First frame.
        stop: Frame after the last.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int = Field(ge=0)
    start: int = Field(ge=0)
    stop: int

    @model_validator(mode="after")
    def _forward(self) -> Excerpt:
        if self.stop <= self.start:
            raise ValueError(f"frames {self.start} to {self.stop} are none")
        return self


class Pair(BaseModel):
    """Two excerpts to compare.

    Attributes:
        pair_id: Its name.
        a: One.
        b: The other.
        ids: What they are called elsewhere (``clip_a_id``, ``clip_b_id``).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    pair_id: str
    a: Excerpt
    b: Excerpt
    ids: tuple[str, str]


class Naming(Protocol):
    """How a row of the file names what stands on a side.

    Attributes:
        columns: The header that is needed.
    """

    columns: str

    def find(self, row: Mapping[str, str], side: Side) -> tuple[Excerpt, str]:
        """Return what a side shows, and what that is called elsewhere.

        Raises:
            KeyError: If a column is missing.
            ValueError: If there is no such thing.
        """
        ...


class ByFrames:
    """Frames of the episodes of a dataset."""

    columns = "pair_id,episode_a,start_a,stop_a,episode_b,start_b,stop_b"

    def __init__(self, lengths: Sequence[int]) -> None:
        """Name frames of episodes that have ``lengths`` of them."""
        self._lengths = lengths

    def find(self, row: Mapping[str, str], side: Side) -> tuple[Excerpt, str]:
        """Return frames start to stop of an episode; without ``clip_<side>_id`` they are called by these numbers."""
        episode, start, stop = (row[f"{column}_{side}"] for column in ("episode", "start", "stop"))
        found = Excerpt.model_validate({"number": episode, "start": start, "stop": stop})
        if found.number >= len(self._lengths) or found.stop > self._lengths[found.number]:
            raise ValueError(f"episode {found.number} has no frames {found.start} to {found.stop}")
        return found, row.get(f"clip_{side}_id") or f"{found.number}_{found.start}_{found.stop}"


class ByClip:
    """Whole clips, by their ids."""

    columns = "pair_id,clip_a_id,clip_b_id"

    def __init__(self, clip_ids: Sequence[str], lengths: Sequence[int]) -> None:
        """Name clips ``clip_ids`` that have ``lengths`` frames."""
        self._numbers = {clip_id: number for number, clip_id in enumerate(clip_ids)}
        self._lengths = lengths

    def find(self, row: Mapping[str, str], side: Side) -> tuple[Excerpt, str]:
        """Return a clip from its first frame to its last."""
        clip_id = row[f"clip_{side}_id"]
        if clip_id not in self._numbers:
            raise ValueError(f"there is no clip {clip_id!r}")
        number = self._numbers[clip_id]
        return Excerpt(number=number, start=0, stop=self._lengths[number]), clip_id


def read_pairs(uri: str, naming: Naming) -> dict[str, Pair]:
    """Read pairs to compare, by pair id, in the file's order; empty where there is no such file.

    Args:
        uri: CSV with the column pair_id and those that ``naming`` needs.
        naming: How a row names the two.

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
            pair = _pair(row, naming)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"not a pair of clips: {error}", where=f"{uri}, line {line}", expected=naming.columns
            ) from None
        if pair.pair_id in pairs:
            raise DataError(f"pair {pair.pair_id} stands twice", where=f"{uri}, line {line}", expected="one line each")
        pairs[pair.pair_id] = pair
    return pairs


def _pair(row: Mapping[str, str], naming: Naming) -> Pair:
    (first, first_id), (second, second_id) = naming.find(row, "a"), naming.find(row, "b")
    if not ITEM.fullmatch(f"pair:{row['pair_id']}"):
        raise ValueError(
            f"pair_id is {row['pair_id']!r}, expected 1 to 64 letters, digits, dots, dashes or underscores"
        )
    return Pair(pair_id=row["pair_id"], a=first, b=second, ids=(first_id, second_id))
