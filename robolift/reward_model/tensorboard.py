"""Curves as TensorBoard reads them, with bytes that depend on the numbers alone: a point's clock is its step.

An event file is a sequence of records (length, its checksum, content, its checksum) whose content is a protocol buffer
``Event``: wall_time = 1 (double), step = 2 (varint), file_version = 3 or summary = 5; a ``Summary`` repeats value = 1,
which has tag = 1 and simple_value = 2 (float). Checksums are masked CRC-32C, as in TFRecord.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path

from robolift import storage

FILE = "events.out.tfevents.0000000000.robolift"
POLYNOMIAL = 0x82F63B78


def _crc_table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ POLYNOMIAL * (value & 1)
        table.append(value)
    return table


_TABLE = _crc_table()


def crc32c(content: bytes) -> int:
    """Return the CRC-32C (Castagnoli) of ``content``."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def _masked(content: bytes) -> bytes:
    crc = crc32c(content)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _record(content: bytes) -> bytes:
    length = struct.pack("<Q", len(content))
    return length + _masked(length) + content + _masked(content)


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _event(step: int, body: bytes) -> bytes:
    return b"\x09" + struct.pack("<d", float(step)) + b"\x10" + _varint(step) + body


def write_scalars(folder: Path, points: Iterable[tuple[str, int, float]]) -> None:
    """Write points (tag, step, value) as one event file in ``folder``."""
    records = [_record(_event(0, _field(3, b"brain.Event:2")))]
    for tag, step, value in points:
        summary = _field(1, _field(1, tag.encode()) + b"\x15" + struct.pack("<f", value))
        records.append(_record(_event(step, _field(5, summary))))
    storage.write_bytes(str(folder / FILE), b"".join(records))
