"""Safetensors files one tensor at a time: weights of many gigabytes pass through the memory of the largest.

The library reads a file that way, but it writes only what is in memory as a whole; so the writer is our own and makes
the bytes that ``safetensors.numpy.save`` would.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np
from safetensors import SafetensorError, safe_open

from robolift import staging, storage
from robolift.errors import DataError

CODES = {"float64": "F64", "float32": "F32", "bfloat16": "BF16", "float16": "F16"}
"""NumPy's names of the types that weights may have and the format's, in the order in which a file holds them."""
STORED = {"float64": "F64", "float32": "F32", "int32": "I32", "bfloat16": "BF16", "float16": "F16"}
"""The same of all types that may be written: a training state counts its steps too."""
ITEMSIZE = {"float64": 8, "float32": 4, "int32": 4, "bfloat16": 2, "float16": 2}
DTYPES = {code: name for name, code in STORED.items()}
ALIGNMENT = 8

Write = Callable[[str, np.ndarray], None]
"""Puts the tensor of that name into its place."""


class Spec(NamedTuple):
    """What is known of a tensor before it is read.

    Attributes:
        shape: Its shape.
        dtype: NumPy's name of its type, or the format's for one that weights don't have.
    """

    shape: tuple[int, ...]
    dtype: str

    @classmethod
    def of(cls, array: np.ndarray) -> Spec:
        """Return the spec of an array."""
        return cls(tuple(array.shape), array.dtype.name)


class TensorFile:
    """A safetensors file that is open for reading.

    Args:
        path: The file.
        where: Its address in messages.

    Attributes:
        specs: Its tensors by name, sorted.
        metadata: Texts of its header.

    Raises:
        DataError: If it is damaged.
    """

    def __init__(self, path: Path, *, where: str) -> None:
        try:
            self._file = cast("Any", safe_open(str(path), "np"))
        except SafetensorError as error:
            raise DataError(
                f"not readable as safetensors: {error}", where=where, mend="copy or write the file again"
            ) from error
        self.specs = {name: self._spec(name) for name in sorted(self._file.keys())}
        self.metadata: dict[str, str] = self._file.metadata() or {}

    def _spec(self, name: str) -> Spec:
        part = self._file.get_slice(name)
        code = part.get_dtype()
        return Spec(tuple(part.get_shape()), DTYPES.get(code, code))

    def read(self, name: str) -> np.ndarray:
        """Return one tensor."""
        tensor: np.ndarray = self._file.get_tensor(name)
        return tensor


@contextmanager
def writing(uri: str, specs: Mapping[str, Spec], metadata: Mapping[str, str] | None = None) -> Iterator[Write]:
    """Give a function that puts tensors into a new safetensors file, in any order.

    A reader of ``uri`` sees the old file until the block ends, and then the new one; after an error, still the old one.

    Args:
        uri: Where the file goes; to another store than a disk it is copied when it is whole.
        specs: Every tensor that will be written.
        metadata: Texts of the file's header.

    Raises:
        UsageError: If nothing may be written there.
    """
    order = sorted(specs, key=lambda name: (list(STORED).index(specs[name].dtype), name))
    header, places = _layout({name: specs[name] for name in order}, metadata)
    with _publishing(uri) as path, path.open("wb") as file:
        file.write(header)
        written = set()

        def write(name: str, tensor: np.ndarray) -> None:
            if Spec.of(tensor) != specs[name]:
                raise ValueError(f"{name} is {Spec.of(tensor)}, announced was {specs[name]}")
            file.seek(places[name])
            _dump(tensor, file)
            written.add(name)

        yield write
        if missing := sorted(specs.keys() - written):
            raise ValueError(f"{len(missing)} announced tensors were not written: {missing[:3]}")
        file.flush()
        os.fsync(file.fileno())


def _layout(specs: Mapping[str, Spec], metadata: Mapping[str, str] | None) -> tuple[bytes, dict[str, int]]:
    """Return the header, and where in the file each tensor starts."""
    document: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    starts, end = {}, 0
    for name, spec in specs.items():
        starts[name] = end
        end += math.prod(spec.shape) * ITEMSIZE[spec.dtype]
        document[name] = {"dtype": STORED[spec.dtype], "shape": spec.shape, "data_offsets": [starts[name], end]}
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    header = len(text).to_bytes(8, "little") + text
    return header, {name: len(header) + start for name, start in starts.items()}


def _dump(tensor: np.ndarray, file: BinaryIO) -> None:
    little = np.ascontiguousarray(tensor, dtype=tensor.dtype.newbyteorder("<"))
    file.write(little.reshape(-1).view(np.uint8).data)


def remove_leavings(uri: str) -> None:
    """Remove what :func:`writing` left beside the file at ``uri`` when it was killed."""
    target = storage.local_path(uri)
    if target is not None:
        staging.remove_leavings(target.parent, target.name)


@contextmanager
def _publishing(uri: str) -> Iterator[Path]:
    """Give a path for a new file, which gets to ``uri`` when the block ends without an error."""
    target = storage.local_path(uri)
    with storage.writable(uri):
        # Beside the target, so that publishing is one rename; killed writers' folders are removed on the way.
        private = (
            staging.claim(Path(tempfile.gettempdir()), "robolift-weights")
            if target is None
            else staging.claim(target.parent, target.name)
        )
    path = private.path / "weights"
    try:
        yield path
        if target is None:
            with storage.writable(uri):
                storage.upload(path, uri)
        else:
            os.chmod(path, 0o644)
            os.replace(path, target)
    finally:
        private.release()
