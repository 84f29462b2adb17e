"""Independent jobs in processes of their own, which end with the one that started them."""

from __future__ import annotations

import multiprocessing
import os
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

from robolift.data.spawned import Spawned
from robolift.errors import RoboliftError

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
            worker.end()


class _Worker(Generic[Job, Result]):
    """A process that does one job after the other."""

    def __init__(self, work: Callable[[Job], Result]) -> None:
        self._spawned = Spawned(_serve, work, name="worker")
        self.connection, self.end = self._spawned.connection, self._spawned.end
        self.number = -1

    def begin(self, job: tuple[int, Job]) -> None:
        self.number = job[0]
        self._spawned.send(job[1])

    def result(self) -> Result:
        job = f"job {self.number}"
        reply, failed = self._spawned.receive(f"worker of {job}", f"{job} was done", setting="num_workers")
        if isinstance(reply, RoboliftError):
            raise reply
        if failed:
            raise RuntimeError(f"{job} failed:\n{reply}")
        result: Result = reply
        return result


def _serve(connection: Connection, work: Callable[[Any], Any]) -> None:
    """Do jobs until the process that sends them is gone."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
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
