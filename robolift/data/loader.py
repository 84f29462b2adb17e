"""Items for the coming steps, made by processes of their own while the current one is used.

What an item is made of is a function of its step alone, so the items don't depend on how many processes make them, and
a run that goes on at any step gets what it would have got. The processes are started afresh and not forked: those of
PyTorch, JAX and FFmpeg have threads, and a fork in the middle of one is stuck. They see no GPU.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from robolift.data.ahead import ahead as in_a_thread
from robolift.data.handover import Connection, Failure, GoneError, Packed, packed
from robolift.data.lost_worker import lost

ItemT = TypeVar("ItemT")
AHEAD = 2
"""Items a worker makes ahead by default: one that waits and one that is being made."""
ENVIRONMENT = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""What a worker is told: to take no GPU's memory, and to be one thread where it computes."""
END_TIMEOUT_S = 10.0
"""How long a worker may take to end once it has closed its connection."""


class Loader(Generic[ItemT]):
    """Iterates over the items of consecutive steps; a context manager, which leaves no process behind.

    An item is the caller's own: its arrays stay as they are for as long as they are kept.
    """

    def __init__(
        self,
        fetch: Callable[[int], ItemT],
        *,
        first_step: int,
        num_steps: int,
        num_workers: int = 0,
        ahead: int | None = None,
    ) -> None:
        """Start making items.

        Args:
            fetch: Makes the item of a step, from the step alone. It has to pickle unless ``num_workers`` is 0, and so
                does the item, None excepted. Every worker gets a copy, whose arrays are shared and read-only.
            first_step: Step of the first item.
            num_steps: How many items.
            num_workers: Processes; with 0 a thread of this one makes each item while the one before is used.
            ahead: Items that are made before they are asked for, at least one a worker, AHEAD a worker by default.
        """
        self._fetch, self._next, self._end = fetch, first_step, first_step + num_steps
        self._first, self._num_workers = first_step, min(num_workers, num_steps)
        self._ahead = max(ahead or AHEAD * num_workers, num_workers)
        self._workers: list[_Worker] = []
        self._thread: Generator[ItemT] | None = None
        self._error: BaseException | None = None
        if not num_workers:
            self._thread = in_a_thread(fetch(step) for step in range(first_step, self._end))
            return
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        self._workers = [_Worker(number) for number in range(self._num_workers)]
        with packed(self._fetch) as ready:
            for worker in self._workers:
                worker.begin(ready)
        for step in range(self._first, min(self._first + self._ahead, self._end)):
            self._worker(step).ask(step)

    def _worker(self, step: int) -> _Worker:
        """Return the worker that makes the item of ``step``."""
        return self._workers[(step - self._first) % self._num_workers]

    def __enter__(self) -> Loader[ItemT]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Loader[ItemT]:
        return self

    def __next__(self) -> ItemT:
        """Return the item of the next step.

        Raises:
            WorkerLostError: If a worker was killed. What ``fetch`` raises is raised here as it is, and again by each
                later call: there is no item after one that failed.
        """
        if self._error is not None:
            raise self._error
        if self._next == self._end:
            self.close()
            raise StopIteration
        try:
            item = self._item(self._next)
        except BaseException as error:
            self._error = error
            self.close()
            raise
        self._next += 1
        return item

    def _item(self, step: int) -> ItemT:
        if self._thread is not None:
            return next(self._thread)
        item: ItemT = self._worker(step).answer(step)
        if step + self._ahead < self._end:
            self._worker(step + self._ahead).ask(step + self._ahead)
        return item

    def close(self) -> None:
        """End the workers; nothing happens the second time."""
        if self._thread is not None:
            self._thread.close()
        for worker in self._workers:
            worker.kill()
        self._workers, self._end = [], self._next


class _Worker:
    """A process that makes items, and the connection to it."""

    def __init__(self, number: int) -> None:
        self._number = number
        ours, theirs = socket.socketpair()
        self._connection = Connection(ours)
        with theirs:
            # Its standard input ends when this process does, however it ends. It finds modules where this process does
            # and not where it was started, and a signal to the terminal's processes is not for it.
            path = os.pathsep.join(place or os.getcwd() for place in sys.path)
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "robolift.data.loader_worker", str(theirs.fileno())],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env={**os.environ, **ENVIRONMENT, "PYTHONPATH": path},
                start_new_session=True,
            )

    def begin(self, fetch: Packed) -> None:
        """Tell it what makes the items."""
        with self._told_of_loss("it was ready"):
            self._connection.send_packed(fetch)

    def ask(self, step: int) -> None:
        """Ask for the item of a step; they are made in the order asked for."""
        with self._told_of_loss(f"the item of step {step} was there"):
            self._connection.send(step)

    def answer(self, step: int) -> Any:
        """Return the item of a step, which was asked for."""
        with self._told_of_loss(f"the item of step {step} was there"):
            made, item = self._connection.receive()
        if made != step:
            raise RuntimeError(f"loader worker {self._number} made the item of step {made} instead of {step}")
        if isinstance(item, Failure):
            raise item.error
        return item

    def kill(self) -> None:
        """End it; it holds nothing that is worth keeping."""
        self._process.kill()
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        self._connection.close()

    @contextmanager
    def _told_of_loss(self, when: str) -> Iterator[None]:
        try:
            yield
        except GoneError as error:
            try:
                code: int | None = self._process.wait(END_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                code = None
            raise lost(f"loader worker {self._number}", code, when, setting="loader_workers") from error
