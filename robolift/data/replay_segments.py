"""Which rows of a replay buffer are whole segments of an episode, in the order in which they were written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from robolift.errors import DataError

SEGMENTS_PER_EPISODE = 10_000
"""online_rl numbers segment k of episode e as e * 10000 + k: the policy acts in one, a person in the next."""

Flags = np.ndarray[Any, np.dtype[np.bool_]]
Integers = np.ndarray[Any, np.dtype[np.integer[Any]]]


@dataclass(frozen=True, kw_only=True)
class Segment:
    """Rows that belong together.

    Attributes:
        episode: What the buffer calls it; of joined segments the first's.
        spans: (start, stop) of its rows, in order; the storage goes on at row 0 where it is full.
        first_mode: Control mode of its first row.
        last_mode: Control mode of its last.
        last_episode: Number of the last of joined segments.
    """

    episode: int
    spans: tuple[tuple[int, int], ...]
    first_mode: int
    last_mode: int
    last_episode: int


@dataclass(frozen=True, kw_only=True)
class Segments:
    """What was found in a buffer.

    Attributes:
        whole: Complete segments, oldest first.
        overwritten: Rows of the oldest one of a full buffer, whose beginning may be overwritten.
        unended: Segments whose last row is not marked done: the writing stopped, or was overwritten.
        unfinished: Rows that were begun and never finished.
        first_left_out: Where the first of all these is, for the error.
    """

    whole: tuple[Segment, ...]
    overwritten: int
    unended: int
    unfinished: int
    first_left_out: str

    @property
    def left_out(self) -> int:
        """How many things are not whole."""
        return bool(self.overwritten) + self.unended + bool(self.unfinished)


def find_segments(
    *,
    episode: Integers,
    done: Flags,
    mode: Integers,
    finished: Flags,
    capacity: int,
    write_cursor: int | None = None,
    where: str = "",
) -> Segments:
    """Cut the rows of a buffer into segments: after each ``done``, and where the episode's number changes.

    A full buffer is overwritten from its oldest row on, wherever in an episode that lies. No row says that others were
    before it, so the oldest segment of a full buffer is never taken for whole.

    Args:
        episode: (N,) number of the episode in each row up to the last one that anything was written to.
        done: (N,) true in the last row of a segment.
        mode: (N,) control mode.
        finished: (N,) whether a row was written to the end.
        capacity: Rows there is room for; N is less where the buffer never was full.
        write_cursor: Row that would be written next, of a buffer that was full; worked out by default.
        where: Which buffer, for errors.

    Raises:
        DataError: If the buffer is full, and the numbers of its episodes do not tell where the oldest row lies.
    """
    count = len(episode)
    full = count > 0 and (count == capacity or write_cursor is not None)
    cursor = 0
    if full:
        cursor = _cursor(episode, where) if write_cursor is None else write_cursor % count
    order = np.roll(np.arange(count), -cursor)
    episode, done, mode, finished = episode[order], done[order], mode[order], finished[order]
    begins = np.ones(count, bool)
    begins[1:] = done[:-1] | (episode[1:] != episode[:-1]) | (finished[1:] != finished[:-1])
    bounds = [*np.flatnonzero(begins).tolist(), count]
    whole: list[Segment] = []
    lost = {"overwritten": 0, "unended": 0, "unfinished": 0}
    first = ""
    for start, stop in pairwise(bounds):
        fault = ""
        if not finished[start]:
            fault, lost["unfinished"] = "never finished", lost["unfinished"] + stop - start
        elif full and start == 0:
            fault, lost["overwritten"] = "the oldest, and its beginning may be overwritten", stop - start
        elif not done[stop - 1]:
            fault, lost["unended"] = "not ended", lost["unended"] + 1
        if fault:
            first = first or f"row {order[start]} (episode {episode[start]}, {stop - start} rows): {fault}"
            continue
        number = int(episode[start])
        whole.append(
            Segment(
                episode=number,
                spans=_spans(order, start, stop),
                first_mode=int(mode[start]),
                last_mode=int(mode[stop - 1]),
                last_episode=number,
            )
        )
    return Segments(whole=tuple(whole), **lost, first_left_out=first)


def join_segments(segments: Sequence[Segment]) -> list[Segment]:
    """Put the segments of an episode together again, in the order of their numbers.

    Two are joined where the second's number is the next one of the same episode and who controls changes between them,
    as online_rl cuts. Others stay as they are: numbers of another origin, or a buffer that keeps corrections elsewhere.

    Raises:
        DataError: If a number stands twice, so that it can't be known what follows on what.
    """
    ordered = sorted(segments, key=lambda segment: segment.episode)
    for before, after in pairwise(ordered):
        if before.episode == after.episode:
            raise DataError(
                f"two segments are numbered {after.episode}",
                where=f"rows {before.spans[0][0]} and {after.spans[0][0]}",
                expected="a number of its own for each, so that an episode's segments can be joined",
                mend="set join_segments to false, and each becomes an episode",
            )
    joined: list[Segment] = []
    for segment in ordered:
        last = joined[-1] if joined else None
        if last and _follows(last, segment):
            joined[-1] = replace(
                last,
                spans=(*last.spans, *segment.spans),
                last_mode=segment.last_mode,
                last_episode=segment.last_episode,
            )
        else:
            joined.append(segment)
    return joined


def _follows(last: Segment, segment: Segment) -> bool:
    same = last.episode // SEGMENTS_PER_EPISODE == segment.episode // SEGMENTS_PER_EPISODE
    return same and segment.episode == last.last_episode + 1 and segment.first_mode != last.last_mode


def _cursor(episode: Integers, where: str) -> int:
    """Return the row that would be overwritten next: where the numbers, which grow with time, fall back."""
    falls = np.flatnonzero(episode < np.roll(episode, 1))
    if len(falls) == 1:
        return int(falls[0])
    raise DataError(
        f"the buffer is full, and its episodes' numbers fall back at {len(falls)} rows",
        where=where,
        expected="one row, from which on it would be overwritten next",
        mend="set write_cursor to that row; in the process that wrote it is buffer._writer._cursor",
    )


def _spans(order: Integers, start: int, stop: int) -> tuple[tuple[int, int], ...]:
    rows = order[start:stop]
    cut = np.flatnonzero(np.diff(rows) != 1)
    edges = [0, *(cut + 1).tolist(), len(rows)]
    return tuple((int(rows[a]), int(rows[b - 1]) + 1) for a, b in pairwise(edges))
