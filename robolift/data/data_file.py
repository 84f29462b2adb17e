"""A Parquet file of a LeRobot dataset, read by episode and never whole."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from robolift import storage
from robolift.data.lerobot_checks import check_columns
from robolift.errors import DataError
from robolift.schema import intact_parquet

KEPT_READS = 4
AHEAD_BYTES = 8 << 20


class DataFile:
    """An open Parquet file: where each episode's rows are, and what was read last of some sets of columns."""

    def __init__(self, uri: str, content: bytes | None) -> None:
        """Open the file.

        Args:
            uri: Where it lies.
            content: Its bytes, where they were read already.

        Raises:
            DataError: If it is missing or unreadable, or the rows of an episode are not together.
        """
        self.uri = uri
        self._checked = False
        self._file = storage.open_for_arrow(uri) if content is None else pa.BufferReader(content)
        remote = content is None and not isinstance(self._file, str)
        try:
            with intact_parquet(uri):
                self._parquet = pq.ParquetFile(self._file, pre_buffer=remote)
                self._schema = self._parquet.schema_arrow
                self.columns: list[str] = self._schema.names
                if "episode_index" not in self.columns:
                    raise DataError("column episode_index is absent", where=uri, expected="the five standard columns")
                owner = self._only_owner()
                owners = None if owner is not None else self._read_owners()
        except Exception:
            self._close_file()
            raise
        self.spans = {owner: (0, self._parquet.metadata.num_rows)} if owners is None else self._spans(owners)
        groups = [self._parquet.metadata.row_group(group) for group in range(self._parquet.num_row_groups)]
        self._edges = [0, *itertools.accumulate(group.num_rows for group in groups)]
        self._sizes = [0, *itertools.accumulate(group.total_byte_size for group in groups)]
        self._read: dict[tuple[str, ...], tuple[int, pa.Table]] = {}

    def _only_owner(self) -> int | None:
        """Return the episode of a file that holds one, as its statistics say; None if they don't."""
        facts, place = self._parquet.metadata, self._schema.get_field_index("episode_index")
        if facts.num_row_groups == 1 and facts.num_columns == len(self.columns):
            stated = facts.row_group(0).column(place).statistics
            if stated is not None and stated.has_min_max and stated.min == stated.max and stated.null_count == 0:
                return int(stated.min)
        return None

    def _read_owners(self) -> np.ndarray:
        """Return the episode of each row, (rows,)."""
        return np.asarray(self._parquet.read(["episode_index"], use_threads=False).column("episode_index").to_numpy())

    def _spans(self, owners: np.ndarray) -> dict[int, tuple[int, int]]:
        starts = (
            np.flatnonzero(np.concatenate([[True], owners[1:] != owners[:-1]])) if len(owners) else np.array([], int)
        )
        stops = np.append(starts[1:], len(owners))
        spans: dict[int, tuple[int, int]] = {}
        for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
            episode = int(owners[start])
            if episode in spans:
                self._close_file()
                raise DataError(
                    f"rows of episode {episode} are not together",
                    where=self.uri,
                    expected="each episode's rows in one run",
                    mend="sort the file by episode_index and frame_index",
                )
            spans[episode] = (start, stop)
        return spans

    def check(self, features: dict[str, dict[str, Any]]) -> None:
        """Check the columns against the declared features, once."""
        if not self._checked:
            check_columns(self._schema, features, where=self.uri)
            self._checked = True

    def rows(self, episode: int, columns: Sequence[str]) -> pa.Table:
        """Return an episode's rows; of small row groups the next are read too, for who goes on."""
        start, stop = self.spans[episode]
        key = tuple(columns)
        offset, read = self._read.pop(key, (0, None))
        if read is None or not offset <= start <= stop <= offset + read.num_rows:
            first = bisect.bisect_right(self._edges, start) - 1
            last = bisect.bisect_left(self._edges, stop)
            last = max(last, bisect.bisect_right(self._sizes, self._sizes[first] + AHEAD_BYTES) - 1)
            with intact_parquet(self.uri):
                groups = list(range(first, last))
                read = self._parquet.read_row_groups(groups, columns=list(columns), use_threads=False)
            offset = self._edges[first]
        self._read[key] = (offset, read)
        if len(self._read) > KEPT_READS:
            self._read.pop(next(iter(self._read)))
        return read.slice(start - offset, stop - start)

    def close(self) -> None:
        """Close the file."""
        self._parquet.close()
        self._close_file()

    def _close_file(self) -> None:
        if not isinstance(self._file, str):
            self._file.close()
