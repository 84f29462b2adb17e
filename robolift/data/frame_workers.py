"""Independent jobs in processes of their own, which end with the one that started them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

from robolift import logging
from robolift.data.lost_worker import lost
from robolift.errors import RoboliftError

END_TIMEOUT_S = 10.0
"""How long a process may take to end once it has closed its connection."""

Job = TypeVar("Job")
Result = TypeVar("Result")


def each(work: Callable[[Job], Result], jobs: Mapping[int, Job], *, num_workers: int) -> Iterator[tuple[int, Result]]:
    """Yield the number of each job and its result, as they become known.

    Processes are spawned, so that what a parent's threads hold is not copied, and none is started for a single worker.

    Args:
        work: What is done; it is sent to each process once.
        jobs: By number.
        num_workers: Most processes.

    Raises:
        RoboliftError: What a job raised, if it was one.
        WorkerLostError: If the process of a job died.
        RuntimeError: If a job failed otherwise.
    """
    if min(num_workers, len(jobs)) <= 1:
        for number, job in jobs.items():
            yield number, work(job)
        return
    workers: list[_Worker[Job, Result]] = []
    coming = iter(jobs.items())
    try:
        for _ in range(min(num_workers, len(jobs))):
            workers.append(_Worker(work))  # one by one: those that were started are stopped if one can't be
        busy = {worker.connection: worker for worker in workers}
        for worker in workers:
            worker.begin(next(coming))
        while busy:
            for connection in wait(list(busy)):
                worker = busy[connection]  # type: ignore[index]
                yield worker.number, worker.result()
                if (following := next(coming, None)) is None:
                    del busy[worker.connection]
                else:
                    worker.begin(following)
    finally:
        for worker in workers:
            worker.stop()


class _Worker(Generic[Job, Result]):
    """A process that does one job after the other."""

    def __init__(self, work: Callable[[Job], Result]) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.number = -1
        with theirs:  # closed here, so that reading from a dead worker ends instead of waiting
            self._process = context.Process(target=_serve, args=(theirs, work), daemon=True)
            self._process.start()

    def begin(self, job: tuple[int, Job]) -> None:
        self.number = job[0]
        with suppress(OSError):  # a process that died is told of when its result is asked for
            self.connection.send(job[1])

    def result(self) -> Result:
        try:
            reply, failed = self.connection.recv()
        except (EOFError, ConnectionError) as error:
            self._process.join(END_TIMEOUT_S)
            code, number = self._process.exitcode, self.number
            raise lost(f"worker of job {number}", code, f"job {number} was done", setting="num_workers") from error
        if isinstance(reply, RoboliftError):
            raise reply
        if failed:
            raise RuntimeError(f"job {self.number} failed:\n{reply}")
        result: Result = reply
        return result

    def stop(self) -> None:
        self._process.terminate()
        self._process.join()
        self.connection.close()


def _serve(connection: Connection, work: Callable[[Any], Any]) -> None:
    """Do jobs until the process that sends them is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    threading.Thread(target=_end_with_parent, daemon=True).start()
    logging.configure()
    with suppress(EOFError, ConnectionError):
        while True:
            job = connection.recv()
            try:
                reply: tuple[Any, bool] = work(job), False
            except RoboliftError as error:
                reply = error, True
            except Exception:
                reply = traceback.format_exc(), True
            connection.send(reply)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
