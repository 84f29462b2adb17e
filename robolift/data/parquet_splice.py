"""Parquet files with some columns written anew: those that stay are copied as they are encoded, and never decoded.

A Parquet file is column chunks, one for each column and row group, and a footer that says where they lie, in Thrift's
compact protocol (https://parquet.apache.org/docs/file-format/). Here the chunks that stay and those of the new columns
are put one after another, and the footer is written for them. What the footer says of the whole file - schema,
metadata, writer - is what Arrow writes for the same rows. Files that are not plainly of Arrow's making are refused, for
Arrow to read and write.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

MAGIC = b"PAR1"
WRITER = b"parquet-cpp-arrow version "
TAIL_BYTES = 8
TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = range(1, 13)
WIDTHS = {TRUE: 0, FALSE: 0, BYTE: 1, DOUBLE: 8}

# Field numbers of parquet.thrift.
VERSION, SCHEMA, NUM_ROWS, ROW_GROUPS, METADATA, CREATED_BY, COLUMN_ORDERS = range(1, 8)
COLUMNS, TOTAL_BYTES, GROUP_ROWS, SORTING, FILE_OFFSET, COMPRESSED_BYTES, ORDINAL = range(1, 8)
CHUNK_OFFSET, CHUNK_FACTS = 2, 3
PAGE_INDEXES = frozenset({4, 5, 6, 7})
FACT_UNCOMPRESSED, FACT_COMPRESSED, FACT_DATA, FACT_INDEX, FACT_DICTIONARY = 6, 7, 9, 10, 11
FACT_STATISTICS = 12
FACT_BLOOM = frozenset({14, 15})
NULL_COUNT, MAX_VALUE, MIN_VALUE = 3, 5, 6
ELEMENT_NAME, NUM_CHILDREN = 4, 5

Struct = dict[int, tuple[int, Any]]
"""Fields by number: kind, and the encoded value or what was parsed of it."""
Layout = dict[str, tuple[tuple[bytes, bool], ...]]
"""Elements of a schema by column: each encoded, and whether it is a leaf."""
# What is parsed of a footer; the rest is kept as bytes.
FOOTER_SHAPE: dict[int, Any] = {ROW_GROUPS: [{COLUMNS: [{CHUNK_FACTS: {}}]}]}


class NotPlainError(Exception):
    """The file is not of the kind that is spliced."""


@dataclass(frozen=True)
class Chunk:
    """One column chunk.

    Attributes:
        content: The file that it lies in.
        facts: What the footer says of it.
        start: Where it begins: with its dictionary, if it has one.
        size: How many bytes it has.
    """

    content: bytes
    facts: Struct
    start: int
    size: int

    def moved(self, start: int) -> bytes:
        """Return its entry of a footer where it begins at ``start``; page indexes, which Arrow rarely writes, go."""
        facts = dict(self.facts)
        for name in (FACT_DATA, FACT_DICTIONARY):
            if name in facts and (place := _number(facts[name][1])):
                facts[name] = (I64, _encoded(place + start - self.start))
        # Arrow writes 0 here, as the format asks of files whose facts stand in the footer.
        return _struct({CHUNK_OFFSET: (I64, _encoded(0)), CHUNK_FACTS: (STRUCT, _struct(facts))})


class PlainFile:
    """A file of one row group that Arrow wrote, with its footer parsed.

    Attributes:
        rows: How many it has.
        layout: Elements of its schema by column.
        chunks: Where each column lies.
    """

    def __init__(self, content: bytes, layouts: dict[bytes, Layout]) -> None:
        """Parse the footer of a file; ``layouts`` holds those that were parsed before, by what they were parsed of."""
        footer = _footer(content)
        if not set(footer) <= {*range(VERSION, COLUMN_ORDERS + 1)}:
            raise NotPlainError  # encrypted, or newer than this
        if WRITER not in footer[CREATED_BY][1][: len(WRITER) + 2]:
            raise NotPlainError  # the statistics of other writers are to be read with care, as their name says
        declared = footer[SCHEMA][1]
        if declared not in layouts:
            layouts[declared] = _layout(declared)
        self.rows = _number(footer[NUM_ROWS][1])
        self.layout = layouts[declared]
        self.chunks = _chunks(content, footer, self.layout)

    def only(self, name: str) -> int | None:
        """Return the one number that an int64 column holds, None if its statistics do not say so."""
        facts = self.chunks[name][0].facts
        if FACT_STATISTICS not in facts:
            return None
        stated: Struct = _parse(facts[FACT_STATISTICS][1], 0, STRUCT, {})[0]
        least, greatest = (stated.get(bound, (BINARY, b""))[1] for bound in (MIN_VALUE, MAX_VALUE))
        nulls = _number(stated[NULL_COUNT][1]) if NULL_COUNT in stated else 0
        if len(least) != 9 or least != greatest or nulls:
            return None
        return int.from_bytes(least[1:], "little", signed=True)


class Splicer:
    """Writes files of one schema."""

    def __init__(self, schema: pa.Schema) -> None:
        """Prepare to write files of ``schema``, metadata included."""
        self._schema = schema
        self._frame = _footer(_written(schema.empty_table()))
        self._layout = _layout(self._frame[SCHEMA][1])
        self._layouts: dict[bytes, Layout] = {}

    def open(self, content: bytes) -> PlainFile | None:
        """Parse a file; None if it is for Arrow to read, as it has several row groups, another writer or is broken."""
        try:
            return PlainFile(content, self._layouts)
        except (NotPlainError, IndexError, KeyError, UnicodeDecodeError):
            return None

    def splice(self, stored: PlainFile, fresh: Mapping[str, pa.Array]) -> bytes | None:
        """Return a file with the columns of the schema: the fresh ones, and the others as they are in a given file.

        Args:
            stored: The given file.
            fresh: Arrays (rows,) by column name.

        Returns:
            A file with the rows, schema and metadata that Arrow would write; None if Arrow has to write it, because a
            column that stays is missing or declared in another way.
        """
        kept = [place.name for place in self._schema if place.name not in fresh]
        if any(stored.layout.get(name) != self._layout[name] for name in kept):
            return None
        places = [place for place in self._schema if place.name in fresh]
        made = _written(pa.Table.from_arrays([fresh[place.name] for place in places], schema=pa.schema(places)))
        chunks = {name: stored.chunks[name] for name in kept}
        chunks |= _chunks(made, _footer(made), {place.name: self._layout[place.name] for place in places})
        return self._joined([chunk for place in self._schema for chunk in chunks[place.name]], stored.rows)

    def _joined(self, chunks: list[Chunk], rows: int) -> bytes:
        parts: list[bytes | memoryview] = [MAGIC]
        entries, place = [], len(MAGIC)
        for chunk in chunks:
            entries.append(chunk.moved(place))
            parts.append(memoryview(chunk.content)[chunk.start : chunk.start + chunk.size])
            place += chunk.size
        total = sum(_number(chunk.facts[FACT_UNCOMPRESSED][1]) for chunk in chunks)
        group = {
            COLUMNS: (LIST, _list(entries)),
            TOTAL_BYTES: (I64, _encoded(total)),
            GROUP_ROWS: (I64, _encoded(rows)),
            FILE_OFFSET: (I64, _encoded(len(MAGIC))),
            COMPRESSED_BYTES: (I64, _encoded(place - len(MAGIC))),
            ORDINAL: (I16, _encoded(0)),
        }
        footer = _struct({**self._frame, NUM_ROWS: (I64, _encoded(rows)), ROW_GROUPS: (LIST, _list([_struct(group)]))})
        return b"".join([*parts, footer, len(footer).to_bytes(4, "little"), MAGIC])


def _written(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="snappy", row_group_size=max(table.num_rows, 1))
    return bytes(sink.getvalue())


def _footer(content: bytes) -> Struct:
    """Return the footer of a file as it is needed here."""
    if content[-len(MAGIC) :] != MAGIC:
        raise NotPlainError
    start = len(content) - TAIL_BYTES - int.from_bytes(content[-TAIL_BYTES:-4], "little")
    if start < len(MAGIC):
        raise NotPlainError
    footer: Struct = _parse(content, start, STRUCT, FOOTER_SHAPE)[0]
    return footer


def _layout(declared: bytes) -> Layout:
    """Return the elements of a schema by the column at the top that they make up, depth first as they stand."""
    elements: list[Struct] = _parse(declared, 0, LIST, [{}])[0]
    found: Layout = {}
    todo = elements[:0:-1]
    while todo:
        top = todo.pop()
        taken, awaited = [top], _children(top)
        while awaited:
            taken.append(todo.pop())
            awaited += _children(taken[-1]) - 1
        name = top[ELEMENT_NAME][1]
        found[name[_varint(name, 0)[1] :].decode()] = tuple(
            (_struct(element), not _children(element)) for element in taken
        )
    if len(found) != _children(elements[0]):
        raise NotPlainError  # two columns of one name
    return found


def _children(element: Struct) -> int:
    return _number(element[NUM_CHILDREN][1]) if NUM_CHILDREN in element else 0


def _chunks(content: bytes, footer: Struct, layout: Layout) -> dict[str, list[Chunk]]:
    """Return the chunks of a file with one row group by the column at the top that they belong to."""
    groups: list[Struct] = footer[ROW_GROUPS][1]
    if len(groups) != 1 or SORTING in groups[0]:
        raise NotPlainError
    entries = iter(groups[0][COLUMNS][1])
    leaves = {name: sum(is_leaf for _, is_leaf in elements) for name, elements in layout.items()}
    if sum(leaves.values()) != len(groups[0][COLUMNS][1]):
        raise NotPlainError
    return {name: [_chunk(content, next(entries)) for _ in range(count)] for name, count in leaves.items()}


def _chunk(content: bytes, entry: Struct) -> Chunk:
    facts: Struct = entry[CHUNK_FACTS][1]
    if not set(entry) <= {CHUNK_OFFSET, CHUNK_FACTS, *PAGE_INDEXES} or FACT_INDEX in facts or FACT_BLOOM & set(facts):
        raise NotPlainError  # in another file, encrypted, or with parts that lie elsewhere in the file
    start, size = _number(facts[FACT_DATA][1]), _number(facts[FACT_COMPRESSED][1])
    if FACT_DICTIONARY in facts:
        # Some writers state 0 where there is none.
        start = min(start, _number(facts[FACT_DICTIONARY][1]) or start)
    if not len(MAGIC) <= start <= start + size <= len(content):
        raise NotPlainError
    return Chunk(content, facts, start, size)


def _parse(data: bytes, at: int, kind: int, shape: Any) -> tuple[Any, int]:
    """Return a value of Thrift's compact protocol and where it ends: parsed as far as ``shape`` says, else bytes.

    A shape is None, a dict of shapes by field, all others being None, or a list with the shape of the items.
    """
    if shape is None:
        end = _skip(data, at, kind)
        return data[at:end], end
    if kind != (LIST if isinstance(shape, list) else STRUCT):
        raise NotPlainError
    if kind == LIST:
        count, item, at = _list_head(data, at)
        items = []
        for _ in range(count):
            value, at = _parse(data, at, item, shape[0])
            items.append(value)
        return items, at
    fields: Struct = {}
    number = 0
    while head := data[at]:
        at += 1
        if not head >> 4:
            raise NotPlainError  # a field number far from the last; parquet.thrift has none
        number += head >> 4
        value, at = _parse(data, at, head & 15, shape.get(number))
        fields[number] = (head & 15, value)
    return fields, at + 1


def _skip(data: bytes, at: int, kind: int) -> int:
    """Return where a value ends."""
    if I16 <= kind <= I64:
        while data[at] & 0x80:
            at += 1
        return at + 1
    if kind in WIDTHS:
        return at + WIDTHS[kind]
    if kind == BINARY:
        size, at = _varint(data, at)
        return at + size
    if kind == STRUCT:
        while head := data[at]:
            if not head >> 4:
                raise NotPlainError
            at = _skip(data, at + 1, head & 15)
        return at + 1
    if kind != LIST:
        raise NotPlainError  # parquet.thrift has neither sets nor maps
    count, item, at = _list_head(data, at)
    for _ in range(count):
        at = at + 1 if item in (TRUE, FALSE) else _skip(data, at, item)
    return at


def _list_head(data: bytes, at: int) -> tuple[int, int, int]:
    """Return the number of items, their kind, and where they begin."""
    count, item, at = data[at] >> 4, data[at] & 15, at + 1
    if count == 15:
        count, at = _varint(data, at)
    if count > len(data):
        raise NotPlainError  # broken: an item has a byte at least
    return count, item, at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while (byte := data[at]) & 0x80:
        value |= (byte & 0x7F) << shift
        shift += 7
        at += 1
    return value | byte << shift, at + 1


def _number(encoded: bytes) -> int:
    value, _ = _varint(encoded, 0)
    return (value >> 1) ^ -(value & 1)


def _encoded(number: int) -> bytes:
    """Return a whole number, not negative, as Thrift's compact protocol has it."""
    return _unsigned(number << 1)


def _unsigned(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def _list(items: list[bytes]) -> bytes:
    count = len(items)
    head = bytes([count << 4 | STRUCT]) if count < 15 else bytes([0xF0 | STRUCT]) + _unsigned(count)
    return head + b"".join(items)


def _struct(fields: Struct) -> bytes:
    parts, last = [], 0
    for number in sorted(fields):
        kind, value = fields[number]
        parts += [bytes([number - last << 4 | kind]), value]
        last = number
    return b"".join([*parts, b"\0"])
