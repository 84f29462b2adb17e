"""Arrays of many frames that are needed again, kept in a file instead of memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


class Spool:
    """Arrays that are written block by block, and read back block by block as often as needed.

    The file has no name from the beginning, so that nothing is left of it however the process ends.
    """

    def __init__(self, folder: Path | None = None) -> None:
        """Make the file.

        Args:
            folder: Folder on the disk that it may take room on; the system's for temporary files by default.
        """
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  (closed with the spool)
        self._blocks: list[list[tuple[np.dtype[Any], int]]] = []

    def add(self, *arrays: npt.NDArray[Any]) -> None:
        """Append the (n,) arrays of one block."""
        for array in arrays:
            self._file.write(np.ascontiguousarray(array).data)
        self._blocks.append([(array.dtype, array.nbytes) for array in arrays])

    def read(self) -> Iterator[list[npt.NDArray[Any]]]:
        """Yield the arrays of each block, in order; they can't be written to."""
        self._file.seek(0)
        for block in self._blocks:
            yield [np.frombuffer(self._file.read(num_bytes), dtype) for dtype, num_bytes in block]

    def close(self) -> None:
        """Give the room back."""
        self._file.close()
