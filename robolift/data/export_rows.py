"""The rows of an export: those that are stored, numbered anew, with columns joined to them.

Arrow types, field order and metadata are those of the first source; Hugging Face's metadata tell what is added.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from robolift.data import lerobot_format as fmt
from robolift.data.columns import is_text
from robolift.data.parquet_splice import Splicer
from robolift.errors import DataError
from robolift.schema import EPISODE_INDEX

# `datasets` 4, which LeRobot v3.0 uses, calls List what 3.x called Sequence, and 3.x does not know the other name.
LIST_NAMES = {fmt.V21: ("List", "Sequence"), fmt.V30: ("Sequence", "List")}


@dataclass
class Rows:
    """Puts the rows of one dataset together, episode by episode.

    Attributes:
        fresh: Arrow types of the columns that are not as they were stored; a stored one of that name gives way.
        added: Those of them that are joined and declared as such.
        features: Columns that all sources have.
        version: LeRobot version written.
    """

    fresh: Mapping[str, pa.DataType]
    added: Collection[str]
    features: Collection[str]
    version: str
    _schema: pa.Schema | None = field(default=None, repr=False)
    _splicer: Splicer | None = field(default=None, repr=False)

    def table(self, stored: pa.Table, fresh: Mapping[str, pa.Array], *, where: str) -> pa.Table:
        """Return the rows of an episode.

        Args:
            stored: Its rows as they are stored.
            fresh: Its columns that are not as they were stored, and maybe others.
            where: What it is, for the error.

        Raises:
            DataError: If a column is of another type than in the first source.
        """
        columns = []
        for place in self.schema(stored.schema):
            column = fresh[place.name] if place.name in self.fresh else stored.column(place.name)
            if column.type != place.type:
                column = _cast(column, place, where=where)
            columns.append(column)
        return pa.Table.from_arrays(columns, schema=self._schema)

    @property
    def numbers(self) -> list[str]:
        """Columns of the rows that were made or spliced that are not text, in their order."""
        return [place.name for place in self._schema or () if not is_text(place.type)]

    def schema(self, stored: pa.Schema) -> pa.Schema:
        """Return the schema of all rows; ``stored``, of the first that are asked for, decides it."""
        if self._schema is None:
            self._schema = self._joined_schema(stored)
        return self._schema

    def splice(
        self, content: bytes, episode: int, fresh: Mapping[str, pa.Array], *, same: Collection[str]
    ) -> bytes | None:
        """Return the file of :meth:`table` made of a stored one, without decoding the columns that stay.

        Args:
            content: The stored file.
            episode: The only episode that it must hold, as it is numbered there.
            fresh: Its columns that are not as they were stored.
            same: Columns that count anew to the numbers that are stored.

        Returns:
            None if the file is not one to be spliced; it is read and written then.
        """
        if self._splicer is None:
            with pq.ParquetFile(pa.BufferReader(content)) as opened:
                self._splicer = Splicer(self.schema(opened.schema_arrow))
        stored = self._splicer.open(content)
        if stored is None or stored.rows != len(fresh["index"]) or stored.only(EPISODE_INDEX) != episode:
            return None
        return self._splicer.splice(stored, {name: fresh[name] for name in self.fresh if name not in same})

    def _joined_schema(self, stored: pa.Schema) -> pa.Schema:
        """Return the first source's schema with the new columns, there and in the metadata of Hugging Face."""
        fresh = self.fresh
        keep = [place for place in stored if place.name in self.features]
        # An added column takes the place of a stored one of its name, but the type that it is declared with.
        fields = [place.with_type(fresh[place.name]) if place.name in fresh else place for place in keep]
        known = {place.name for place in keep}
        fields += [pa.field(name, kind) for name, kind in fresh.items() if name not in known]
        metadata = dict(stored.metadata or {})
        if b"huggingface" in metadata:
            document = json.loads(metadata[b"huggingface"])
            features = document.get("info", {}).get("features")
            if isinstance(features, dict):
                declared = {name: {"dtype": dtype_of(fresh[name]), "_type": "Value"} for name in self.added}
                kept = {name: facts for name, facts in features.items() if name in known}
                document["info"]["features"] = _renamed({**kept, **declared}, *LIST_NAMES[self.version])
                metadata[b"huggingface"] = json.dumps(document).encode()
        return pa.schema(fields, metadata=metadata)


def write_beside(path: Path, folder: str, episode: int, table: pa.Table, *, chunk_size: int) -> None:
    """Write an episode's rows to a folder that is laid out like ``data`` of v2.1 and lies beside it."""
    name = fmt.DATA_PATHS[fmt.V21].format(episode_chunk=episode // chunk_size, episode_index=episode)
    target = path / folder / name.partition("/")[2]
    target.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, target, compression="snappy")


def _cast(column: pa.ChunkedArray, place: pa.Field, *, where: str) -> pa.ChunkedArray:
    try:
        return column.cast(place.type)
    except pa.ArrowException as error:
        raise DataError(
            f"column {place.name} is {column.type}, {place.type} in the first source",
            where=where,
            expected="one type in all sources",
            mend="export the sources on their own, or write the column anew",
        ) from error


def dtype_of(kind: pa.DataType) -> str:
    """Return what LeRobot calls the type of a scalar column."""
    return next(name for name, of in fmt.ARROW_TYPES.items() if of == kind)


def _renamed(document: Any, old: str, new: str) -> Any:
    """Return ``document`` with the list type of Hugging Face's features under its other name."""
    if isinstance(document, dict):
        renamed = {key: _renamed(value, old, new) for key, value in document.items()}
        return {**renamed, "_type": new} if renamed.get("_type") == old else renamed
    return document
