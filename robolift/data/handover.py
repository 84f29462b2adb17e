"""Objects handed to another process over a socket: arrays in memory that has no name, the rest pickled.

The arrays of an object lie in an anonymous file that exists as long as somebody has it open or mapped. So a killed
process leaves nothing to clean up, and a receiver keeps an array for as long as it likes. Unlike ``/dev/shm``, of which
a container gets 64 MB, such files know no limit but memory itself.

A file's first byte says whether its receiver has let go of all that lay in it. Who sends many objects uses it again.
"""

from __future__ import annotations

import io
import mmap
import multiprocessing
import multiprocessing.context
import os
import pickle
import resource
import socket
import struct
import tempfile
import traceback
import weakref
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from robolift.errors import RoboliftError, UsageError

ALIGNMENT = 64
"""Arrays begin at multiples of this, as NumPy's and JAX's own do for the sake of vector instructions."""
HEADER = struct.Struct("!QQ")
MAX_FILES = 64
"""Files that one object may hold open."""
FREE_FILES = 2
"""Files that are kept for the next object, beside those that somebody still looks into."""


class GoneError(Exception):
    """The other end of a connection is gone."""


@dataclass(frozen=True)
class Packed:
    """An object ready to be sent.

    Attributes:
        header: Bytes of its description, and of all.
        files: Open descriptors: of the file that holds it, then of files that it holds open.
    """

    header: bytes
    files: list[int]


class Files:
    """Files that objects are sent in one after the other, each used again once its receiver has let go of it.

    To be given new memory takes longer than to write into it: several times as long on a virtual machine that gives
    what is free back to its host.
    """

    def __init__(self) -> None:
        self._maps: dict[int, mmap.mmap] = {}

    def take(self, size: int) -> int:
        """Return the descriptor of a file of ``size`` bytes or more that nobody looks into; it stays this object's."""
        free = [file for file, memory in self._maps.items() if memory[0]]
        for file in free[FREE_FILES:]:
            self._close(file)
        for file in free[:FREE_FILES]:
            if len(self._maps[file]) >= size:
                self._maps[file][0] = False
                return file
            self._close(file)
        file = _anonymous_file()
        os.ftruncate(file, size)
        self._maps[file] = mmap.mmap(file, size)
        return file

    def close(self) -> None:
        """Let go of all of them."""
        for file in list(self._maps):
            self._close(file)

    def _close(self, file: int) -> None:
        self._maps.pop(file).close()
        os.close(file)


@contextmanager
def packed(value: Any, files: Files | None = None) -> Iterator[Packed]:
    """Make an object ready to be sent any number of times inside the block: all receivers share its arrays.

    One that is sent in one of ``files`` has one receiver.

    A memory map is not copied as long as its file has a name: the receiver maps the same file. Objects that hold a
    file open give it along by ``multiprocessing.reduction.DupFd``, as they do to a process that is being started.
    """
    buffers: list[pickle.PickleBuffer] = []
    content = io.BytesIO()
    with ExitStack() as stack:
        given = stack.enter_context(_descriptors())
        _Pickler(content, protocol=5, buffer_callback=buffers.append).dump(value)
        views = [buffer.raw() for buffer in buffers]
        head = memoryview(pickle.dumps((content.getvalue(), [view.nbytes for view in views])))
        places = _places([view.nbytes for view in (head, *views)])
        if files is None:
            file = _anonymous_file()
            stack.callback(os.close, file)
            os.ftruncate(file, places[-1].stop)
        else:
            file = files.take(places[-1].stop)
        for view, place in zip((head, *views), places, strict=True):
            _write(file, view, place.start)
        yield Packed(HEADER.pack(head.nbytes, places[-1].stop), [file, *given])


@dataclass(frozen=True)
class Failure:
    """Stands for an object that could not be made.

    Attributes:
        error: What was raised, to be raised again by the receiver.
    """

    error: Exception

    @classmethod
    def of(cls, error: Exception) -> Failure:
        """Take an error as it is, or its text alone if it does not pickle; a defect's traceback stays with it."""
        trace = "".join(traceback.format_exception(error))
        if not isinstance(error, RoboliftError):
            error.add_note(f"raised in another process:\n{trace}")
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:
            return cls(RuntimeError(trace))
        return cls(error)


class Connection:
    """One end of a socket over which objects are sent."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end

    def close(self) -> None:
        """Close this end."""
        self._end.close()

    def send(self, value: Any) -> None:
        """Send anything that pickles.

        Raises:
            GoneError: If the other end is gone.
        """
        with packed(value) as ready:
            self.send_packed(ready)

    def send_packed(self, ready: Packed) -> None:
        """Send an object that others may get, too; errors are the same."""
        with _told_of_end():
            socket.send_fds(self._end, [ready.header], ready.files)

    def receive(self, *, writable: bool = True) -> Any:
        """Return the next object.

        Args:
            writable: Whether its arrays may be changed, which whoever shares them would see.

        Raises:
            GoneError: If the other end is gone. Whatever keeps an object from being made again comes as it is.
            UsageError: If this process may open no more files.
        """
        with _told_of_end():
            header, files, flags, _ = socket.recv_fds(self._end, HEADER.size, MAX_FILES, socket.MSG_WAITALL)
        try:
            if len(header) < HEADER.size:
                raise GoneError
            if flags & socket.MSG_CTRUNC:
                allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
                raise UsageError(
                    f"a process may have {allowed} files open, too few to be handed another; raise the limit: ulimit -n"
                )
            length, size = HEADER.unpack(header)
            mapped = mmap.mmap(files[0], size, access=mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ)
            whole = np.frombuffer(mapped, np.uint8)  # which lives as long as anything that lies in it
            if writable:
                weakref.finalize(whole, _let_go, mapped).atexit = False
            memory = whole.data
            content, sizes = pickle.loads(memory[_places([length])[0]])
            places = _places([length, *sizes])[1:]
            unpickler = _Unpickler(io.BytesIO(content), buffers=[memory[place] for place in places])
            unpickler.files = files[1:]
            return unpickler.load()
        finally:
            for file in files:
                os.close(file)


@contextmanager
def _told_of_end() -> Iterator[None]:
    try:
        yield
    except ConnectionError as error:
        raise GoneError from error


class _Descriptor:
    """Stands for an open file of the sender in what is pickled, and for the receiver's in what comes back."""

    def __init__(self, place: int) -> None:
        self._place = place

    def detach(self) -> int:
        """Return a descriptor of the file, the caller's own."""
        return os.dup(self._place)


class _Given:
    """Takes the place of a process that is being started, of which multiprocessing asks to be given files."""

    DupFd = _Descriptor

    def __init__(self) -> None:
        self.files: list[int] = []

    def duplicate_for_child(self, file: int) -> int:
        """Return the place in ``files`` of a copy of ``file``."""
        self.files.append(os.dup(file))
        return len(self.files) - 1


@contextmanager
def _descriptors() -> Iterator[list[int]]:
    """Collect the files that objects give along while they are pickled; they stay open for the length of the block."""
    given = _Given()
    multiprocessing.context.set_spawning_popen(given)  # type: ignore[arg-type]
    try:
        yield given.files
    finally:
        multiprocessing.context.set_spawning_popen(None)
        for file in given.files:
            os.close(file)


class _Pickler(pickle.Pickler):
    """Pickles memory maps by the names of their files."""

    def persistent_id(self, value: Any) -> int | None:
        return value._place if isinstance(value, _Descriptor) else None

    def reducer_override(self, value: Any) -> Any:
        if not (isinstance(value, np.memmap) and isinstance(value.base, mmap.mmap) and value.flags.c_contiguous):
            return NotImplemented
        if not os.path.exists(str(value.filename)):
            return NotImplemented
        # A part of a map says where the whole begins; a map begins at a page.
        begin = value.offset - value.offset % mmap.ALLOCATIONGRANULARITY
        begin += value.ctypes.data - np.frombuffer(value.base, np.uint8).ctypes.data
        return _map, (str(value.filename), value.dtype, begin, value.shape)


class _Unpickler(pickle.Unpickler):
    files: Sequence[int]

    def persistent_load(self, place: int) -> _Descriptor:
        return _Descriptor(self.files[place])


def _map(path: str, dtype: np.dtype[Any], offset: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape)


def _let_go(mapped: mmap.mmap) -> None:
    mapped[0] = True


def _places(sizes: Sequence[int]) -> list[slice]:
    """Return where buffers of these sizes lie in a file, after its first byte."""
    places, end = [], 1
    for size in sizes:
        start = -(-end // ALIGNMENT) * ALIGNMENT
        end = start + size
        places.append(slice(start, end))
    return places


def _anonymous_file() -> int:
    """Return the descriptor of an empty file without a name, in memory where the system has such."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("robolift", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _write(file: int, view: memoryview, start: int) -> None:
    while view:
        count = os.pwrite(file, view, start)
        view, start = view[count:], start + count
