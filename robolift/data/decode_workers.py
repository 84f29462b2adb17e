"""Processes that decode the coming batches while this one computes.

Each process takes some cameras; beyond one process a camera, the processes of a camera take its batches in turn. Frames
are written into a ring of batches in memory that has no name, so that nothing is left of it however a process ends.
The processes end when their pipe does.
"""

from __future__ import annotations

import ctypes
import itertools
import math
import multiprocessing
import traceback
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Self

import numpy as np

from robolift import manifest
from robolift.data.dataset import Dataset
from robolift.data.decoding import Batch, Wanted, camera_frames, fill
from robolift.data.spawned import Spawned
from robolift.errors import RoboliftError

STOP_TIMEOUT_S = 5.0
Failure = tuple[int, RoboliftError | str]
"""The camera's place, and what was raised: the error itself if it speaks to the user, else its traceback."""


@dataclass(frozen=True, kw_only=True)
class Share:
    """What one process decodes.

    Attributes:
        cameras: Places of its cameras.
        lane: It decodes the batches whose number leaves this remainder.
        num_lanes: When divided by this.
    """

    cameras: tuple[int, ...]
    lane: int
    num_lanes: int


def shares(num_cameras: int, num_workers: int) -> list[Share]:
    """Deal out cameras, and among several processes of a camera its batches; at most ``num_workers``.

    Cameras come first, because frames that are skipped are decoded all the same where keyframes are far apart. Beyond
    one process a camera all cameras get equally many.
    """
    a_lane = min(num_workers, num_cameras)
    num_lanes = max(1, num_workers // num_cameras)
    return [
        Share(cameras=tuple(range(first, num_cameras, a_lane)), lane=lane, num_lanes=num_lanes)
        for lane in range(num_lanes)
        for first in range(a_lane)
    ]


class DecodeWorkers:
    """Decodes batches in processes of its own; a context manager that stops them."""

    def __init__(self, dataset: Dataset, wanted: Wanted, num_workers: int) -> None:
        """Start the processes.

        Args:
            dataset: An imported dataset; each process opens it again.
            wanted: Which frames, of at least one camera.
            num_workers: Most processes.
        """
        self._wanted, self._starts = wanted, dataset.starts
        self._shares = shares(len(wanted.cameras), num_workers)
        # One batch in use; for each lane one that is being decoded and one that it goes on with.
        num_slots = 1 + 2 * self._shares[0].num_lanes
        memory = multiprocessing.get_context("spawn").RawArray(ctypes.c_uint8, num_slots * math.prod(wanted.shape))
        self._slots = _slots(memory, wanted)
        self._workers: list[Spawned] = []
        try:
            for number, share in enumerate(self._shares):
                self._workers.append(Spawned(serve, memory, dataset.uri, wanted, share, name=f"decode-{number}"))
        except BaseException:
            self._stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stop()

    def _stop(self) -> None:
        for worker in self._workers:
            worker.connection.close()  # each process ends with the batch that it is decoding
        for worker in self._workers:
            worker.end(STOP_TIMEOUT_S)

    def images(self) -> Iterator[np.ndarray]:
        """Yield what robolift.data.decoding.decoded yields; an array is valid until the next is asked for.

        Raises:
            DataError: As decoding in this process would raise, for the first batch with a broken frame.
            WorkerLostError: If a process died.
        """
        batches = self._wanted.batches(self._starts)
        ordered = deque(itertools.islice(batches, len(self._slots)))
        for batch in ordered:
            self._order(batch)
        while ordered:
            batch = ordered.popleft()
            self._wait_for(batch)
            yield self._slots[self._slot(batch)]
            for following in itertools.islice(batches, 1):  # its slot is the one that is free now
                self._order(following)
                ordered.append(following)

    def _slot(self, batch: Batch) -> int:
        return batch.number % len(self._slots)

    def _order(self, batch: Batch) -> None:
        """Have a batch decoded into its slot."""
        images = self._slots[self._slot(batch)]
        images[: batch.places.start] = 0
        images[batch.places.stop :] = 0
        for worker in self._of(batch):
            self._workers[worker].send((self._slot(batch), batch))

    def _wait_for(self, batch: Batch) -> None:
        failures: list[Failure] = []
        for worker in self._of(batch):
            who, when = f"decode worker {worker}", f"batch {batch.number} was there"
            failures += self._workers[worker].receive(who, when, setting="decode_workers")
        if failures:
            _, raised = min(failures, key=lambda failure: failure[0])
            raise raised if isinstance(raised, RoboliftError) else RuntimeError(f"a decode process failed:\n{raised}")

    def _of(self, batch: Batch) -> list[int]:
        return [n for n, share in enumerate(self._shares) if batch.number % share.num_lanes == share.lane]


def serve(connection: Connection, memory: Any, dataset_uri: str, wanted: Wanted, share: Share) -> None:
    """Decode the batches that are asked for, in order, until the pipe ends; the work of a process."""
    slots = _slots(memory, wanted)
    streams: dict[int, Iterator[np.ndarray]] = {}
    failures: list[Failure] = []
    while not failures:
        slot, batch = connection.recv()
        for position in share.cameras:
            try:
                if not streams:
                    streams = _streams(dataset_uri, wanted, share)
                fill(slots[slot, batch.places, position], streams[position])
            except RoboliftError as error:
                failures.append((position, error))
            except Exception:
                failures.append((position, traceback.format_exc()))
        connection.send(failures)


def _streams(dataset_uri: str, wanted: Wanted, share: Share) -> dict[int, Iterator[np.ndarray]]:
    dataset = Dataset.open(manifest.load(dataset_uri))
    return {
        position: camera_frames(dataset, wanted, wanted.cameras[position], lane=share.lane, num_lanes=share.num_lanes)
        for position in share.cameras
    }


def _slots(memory: Any, wanted: Wanted) -> np.ndarray:
    """Return the shared memory as (number of slots, B, K, H, W, 3)."""
    return np.frombuffer(memory, np.uint8).reshape(-1, *wanted.shape)
