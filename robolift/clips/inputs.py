"""Clips and their features as the stages after extraction read them: columns in the order of the clips' ids."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from robolift import schema, storage
from robolift.errors import DataError
from robolift.manifest import Manifest

GroupBy = Literal["participant", "video"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Clips:
    """What is known about each clip, sorted by id.

    Attributes:
        clip_id: (n,) ids.
        video_id: (n,) the videos they were cut from.
        participant_id: (n,) who filmed, None where it is not known.
        kind: (n,) ``annotated`` or ``random``.
        num_frames: (n,) frames of the clips' files.
    """

    clip_id: tuple[str, ...]
    video_id: tuple[str, ...]
    participant_id: tuple[str | None, ...]
    kind: tuple[str, ...]
    num_frames: tuple[int, ...]

    @classmethod
    def open(cls, manifest: Manifest) -> Clips:
        """Read ``clips.parquet`` of a ClipSet.

        Raises:
            DataError: If it is damaged, lacks a column or has an id twice.
        """
        names = ["clip_id", "video_id", "participant_id", "kind", "num_frames"]
        table = _sorted(_read(manifest.file("clips.parquet"), names), manifest.file("clips.parquet"))
        columns = {name: tuple(table.column(name).to_pylist()) for name in names}
        return cls(**columns)

    def groups(self, by: GroupBy) -> tuple[str, ...]:
        """Return the group of each clip, (n,): what training and held-out clips never share.

        Raises:
            DataError: If the participant of a clip is not known.
        """
        if by == "video":
            return self.video_id
        known = [participant for participant in self.participant_id if participant is not None]
        if len(known) < len(self.clip_id):
            raise DataError(
                f"{len(self.clip_id) - len(known)} clips have no participant",
                where=f"first: clip {self.clip_id[self.participant_id.index(None)]}",
                expected="a participant_id for each clip",
                mend="give ingest_videos a participant_pattern, or split by video",
            )
        return tuple(known)

    def widest_groups(self) -> tuple[GroupBy, tuple[str, ...]]:
        """Return participants where all are known, else videos."""
        by: GroupBy = "video" if None in self.participant_id else "participant"
        return by, self.groups(by)

    def rows(self, clip_ids: Sequence[str], *, where: str) -> np.ndarray:
        """Return the row of each id, int64.

        Raises:
            DataError: If an id is of no clip.
        """
        index = {clip_id: row for row, clip_id in enumerate(self.clip_id)}
        unknown = sorted({clip_id for clip_id in clip_ids if clip_id not in index})
        if unknown:
            raise DataError(
                f"{len(unknown)} clips are not known, such as {unknown[0]}",
                where=where,
                expected=f"ids of the {len(self.clip_id)} clips",
                mend="give the clips that it was made from",
            )
        return np.array([index[clip_id] for clip_id in clip_ids], np.int64)


@dataclass(frozen=True, kw_only=True, eq=False)
class Features:
    """What was measured on each clip, sorted by id.

    Attributes:
        clip_id: (n,) ids.
        scalars: Each (n,) float64 by name, NaN where it is not known.
        embedding: (n, width) float64, the mean over the clip's frames; width 0 without an encoder.
        origin: How they were measured: extractors, encoder, decoding.
    """

    clip_id: tuple[str, ...]
    scalars: Mapping[str, np.ndarray]
    embedding: np.ndarray
    origin: Mapping[str, Any]

    @classmethod
    def open(cls, manifest: Manifest) -> Features:
        """Read ``features.parquet`` and ``features.json`` of a FeatureSet.

        Raises:
            DataError: If one is damaged, an id stands twice or embeddings differ in width.
        """
        uri = manifest.file("features.parquet")
        table = _sorted(_read(uri, ["clip_id"]), uri)
        names = [field.name for field in table.schema if pa.types.is_floating(field.type)]
        return cls(
            clip_id=tuple(table.column("clip_id").to_pylist()),
            scalars={name: numbers(table, name) for name in names},
            embedding=vectors(table, "embedding", where=uri),
            origin=dict(storage.read_json(manifest.file("features.json"))),
        )

    def check_clips(self, clips: Clips) -> None:
        """Check that they are the features of exactly these clips.

        Raises:
            DataError: Naming a clip that only one has.
        """
        check_same_clips(self.clip_id, clips.clip_id, where="features")

    def columns(self, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Return several features as :meth:`scalar` does."""
        return {name: self.scalar(name) for name in names}

    def scalar(self, name: str) -> np.ndarray:
        """Return one feature, (n,) float64, known for every clip.

        Raises:
            DataError: If it was not measured, or not on every clip.
        """
        if name not in self.scalars:
            raise DataError(
                f"feature {name} was not measured",
                where="features.parquet",
                expected=", ".join(sorted(self.scalars)) or "a scalar feature",
                mend="extract it, or leave it out of the fields",
            )
        values = self.scalars[name]
        missing = np.flatnonzero(~np.isfinite(values))
        if len(missing):
            raise DataError(
                f"feature {name} is not known for {len(missing)} of {len(values)} clips",
                where=f"first: clip {self.clip_id[missing[0]]}",
                expected="a number for each clip",
                mend="extract it again, or leave it out of the fields",
            )
        return values


def check_same_clips(found: Sequence[str], expected: Sequence[str], *, where: str) -> None:
    """Check that two sets of clips are one.

    Raises:
        DataError: Naming a clip that only one has.
    """
    if set(found) != set(expected):
        odd = min(set(found) ^ set(expected))
        raise DataError(
            f"the clips differ: {odd} is only in {'this' if odd in set(found) else 'the other'}",
            where=where,
            expected=f"the same {len(expected)} clips",
            mend="give outputs that were made from one another",
        )


def numbers(table: pa.Table, name: str) -> np.ndarray:
    """Return a numeric column as float64, null as NaN."""
    return np.asarray(table.column(name).cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64)


def vectors(table: pa.Table, name: str, *, where: str) -> np.ndarray:
    """Return a column of lists of one length as (n, width) float64; width 0 where the column is missing or all null.

    Raises:
        DataError: If lengths differ, or some rows only are null.
    """
    num = table.num_rows
    if name not in table.column_names or table.column(name).null_count == num:
        return np.zeros((num, 0))
    column = table.column(name).combine_chunks()
    lengths = column.value_lengths().to_pylist() if column.null_count == 0 else [None, 0]
    if len(set(lengths)) != 1:
        raise DataError(f"column {name} has vectors of different lengths", where=where, expected="one length for all")
    found = np.asarray(column.flatten().to_numpy(zero_copy_only=False), np.float64).reshape(num, -1)
    if not np.isfinite(found).all():
        raise DataError(f"column {name} has numbers that are not finite", where=where, expected="finite numbers")
    return found


def _read(uri: str, needed: Sequence[str]) -> pa.Table:
    table = schema.read_parquet(uri)
    missing = [name for name in needed if name not in table.column_names]
    if missing:
        raise DataError(f"column {missing[0]} is missing", where=uri, expected=", ".join(needed))
    return table


def _sorted(table: pa.Table, uri: str) -> pa.Table:
    table = table.sort_by("clip_id").combine_chunks()
    ids = table.column("clip_id").to_pylist()
    for before, after in itertools.pairwise(ids):
        if before == after:
            raise DataError(f"clip {after} stands twice", where=uri, expected="one row a clip")
    if not ids:
        raise DataError("there are no clips", where=uri, expected="at least one", mend="extract some")
    return table
