"""Messages as openpi's ``msgpack_numpy`` writes them: msgpack in which a NumPy array is a map of its bytes.

An array is ``{b"__ndarray__": True, b"data": bytes, b"dtype": "<f4", b"shape": [2, 3]}``, a NumPy scalar
``{b"__npgeneric__": True, b"data": value, b"dtype": "<f4"}`` (Physical Intelligence's openpi, packages/openpi-client).
What comes in is anybody's bytes: only plain numbers and text become arrays, nothing is ever unpickled, and a message
can't make more of itself than a few thousand objects.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import msgpack
import numpy as np

from robolift.errors import DataError

ARRAY, SCALAR = b"__ndarray__", b"__npgeneric__"
ARRAY_KEYS = {ARRAY, b"data", b"dtype", b"shape"}
SCALAR_KEYS = {SCALAR, b"data", b"dtype"}
PLAIN_DTYPE = re.compile(r"[<>|=]?[biufU]\d{1,6}")
MAX_DIMENSIONS = 8
MAX_CODE_POINT, SURROGATES = 0x10FFFF, (0xD800, 0xDFFF)
MAX_ITEMS = 4096
"""Entries of all maps and lists of a message together. Arrays count as their four; a byte that stands for an empty map
becomes a Python object sixty times as large, and a frame has millions of bytes."""


def pack(message: Mapping[str, Any]) -> bytes:
    """Return a message as bytes.

    Raises:
        TypeError: If there is something in it that has no form on the wire.
    """
    return bytes(msgpack.packb(message, default=_pack_numpy))


def _pack_numpy(value: Any) -> dict[bytes, Any]:
    if isinstance(value, (np.ndarray, np.generic)) and not PLAIN_DTYPE.fullmatch(value.dtype.str):
        raise TypeError(f"no message holds {value.dtype}")
    if isinstance(value, np.ndarray):
        return {ARRAY: True, b"data": value.tobytes(), b"dtype": value.dtype.str, b"shape": value.shape}
    if isinstance(value, np.generic):
        return {SCALAR: True, b"data": value.item(), b"dtype": value.dtype.str}
    raise TypeError(f"no message holds {type(value).__name__}")


def unpack(message: bytes) -> Any:
    """Return what a message says; its arrays are views into ``message`` and can't be written to.

    Raises:
        DataError: If it is not msgpack, or holds what is not plain numbers and text.
    """
    reader = _Reader()
    try:
        return msgpack.unpackb(
            message,
            object_hook=reader.map,
            list_hook=reader.list,
            max_array_len=MAX_ITEMS,
            max_map_len=MAX_ITEMS,
            max_ext_len=0,
        )
    except (ValueError, TypeError, OverflowError) as error:
        raise _damaged(f"{error}" or "not msgpack") from error


class _Reader:
    """Turns maps into arrays where they are such, and counts."""

    def __init__(self) -> None:
        self._items = 0

    def list(self, items: list[Any]) -> list[Any]:
        self._count(items)
        return items

    def map(self, entries: dict[Any, Any]) -> Any:
        self._count(entries)
        if ARRAY in entries:
            return _array(entries)
        if SCALAR in entries:
            return _scalar(entries)
        return entries

    def _count(self, container: Any) -> None:
        self._items += len(container)
        if self._items > MAX_ITEMS:
            raise _damaged(f"more than {MAX_ITEMS} entries; numbers go into arrays")


def _array(entries: dict[Any, Any]) -> np.ndarray:
    if set(entries) != ARRAY_KEYS:
        raise _damaged(f"an array has the keys {ARRAY_KEYS}, not {set(entries)}"[:200])
    dtype, shape, data = _dtype(entries[b"dtype"]), entries[b"shape"], entries[b"data"]
    if (
        not isinstance(shape, list)
        or len(shape) > MAX_DIMENSIONS
        or any(type(length) is not int or length < 0 for length in shape)
    ):
        raise _damaged(f"{shape!r} is not the shape of an array"[:200])
    if not isinstance(data, bytes) or len(data) != math.prod(shape) * dtype.itemsize or not dtype.itemsize:
        size = len(data) if isinstance(data, bytes) else type(data).__name__
        raise _damaged(f"an array {shape} of {dtype} can't be made of {size} bytes"[:200])
    array = np.frombuffer(data, dtype).reshape(shape)
    if dtype.kind == "U":
        _check_text(array)
    return array


def _check_text(array: np.ndarray) -> None:
    """Refuse text arrays of numbers that no character has; NumPy fails on them only when it is asked for the text."""
    codes = np.frombuffer(array.tobytes(), np.dtype(np.uint32).newbyteorder(array.dtype.byteorder))
    first, last = SURROGATES
    if ((codes > MAX_CODE_POINT) | ((codes >= first) & (codes <= last))).any():
        raise _damaged("a text array holds what is no character")


def _scalar(entries: dict[Any, Any]) -> Any:
    if set(entries) != SCALAR_KEYS or not isinstance(entries[b"data"], (bool, int, float, str)):
        raise _damaged("a NumPy scalar is not one number or text")
    return _dtype(entries[b"dtype"]).type(entries[b"data"])


def _dtype(name: Any) -> np.dtype[Any]:
    # Names of objects, structures and dates are refused before NumPy sees them.
    if not isinstance(name, str) or not PLAIN_DTYPE.fullmatch(name):
        raise _damaged(f"{name!r} is no type of plain numbers or text"[:200])
    return np.dtype(name)


def _damaged(problem: str) -> DataError:
    return DataError(
        f"unreadable message: {problem}",
        expected="one msgpack map with NumPy arrays, as openpi-client packs it",
        mend="send observations with openpi_client.websocket_client_policy",
    )
