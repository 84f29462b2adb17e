"""Simulator processes that live as long as a worlds: each holds some worlds and answers requests about them.

They are spawned, so that neither OpenGL nor MuJoCo meets what the parent has loaded (torch, JAX), and import the
simulator themselves after choosing the OpenGL library. Requests name a slot: a place for one running episode.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import traceback
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any

import numpy as np

from robolift.data.cores import num_cores
from robolift.errors import RoboliftError, UsageError
from robolift.sim import graphics
from robolift.sim.plans import EpisodePlan, WorldSpec
from robolift.sim.records import EpisodeRecord, Observation

STOP_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Begin:
    """Start the planned episode in a slot."""

    plan: EpisodePlan


@dataclass(frozen=True)
class Continue:
    """Give the episode in a slot its next chunk of actions, (horizon, 4)."""

    actions: np.ndarray


Request = Begin | Continue


class Workers:
    """A group of simulator processes; a context manager that stops them.

    Args:
        spec: The worlds they build.
        num_workers: How many processes; by default one a core.
    """

    def __init__(self, spec: WorldSpec, num_workers: int | None = None) -> None:
        context = multiprocessing.get_context("spawn")
        self._connections: list[Connection] = []
        self._processes = []
        for number in range(num_workers or num_cores()):
            ours, theirs = context.Pipe()
            process = context.Process(target=serve, args=(theirs, spec), name=f"simulator-{number}", daemon=True)
            process.start()
            theirs.close()  # so that reading from a dead worker ends instead of waiting
            self._connections.append(ours)
            self._processes.append(process)

    def __len__(self) -> int:
        return len(self._connections)

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def send(self, worker: int, requests: Mapping[int, Request]) -> None:
        """Send requests by slot to one worker; each send is answered by one :meth:`receive`."""
        try:
            self._connections[worker].send(dict(requests))
        except OSError as error:
            raise self._died(worker) from error

    def receive(self, worker: int) -> dict[int, Any]:
        """Return a worker's replies by slot: an observation that wants actions, or a finished record.

        Raises:
            RoboliftError: If the worker raised one.
            RuntimeError: If it failed otherwise or died.
        """
        try:
            reply = self._connections[worker].recv()
        except (EOFError, OSError) as error:
            raise self._died(worker) from error
        if isinstance(reply, RoboliftError):
            raise reply
        if isinstance(reply, str):
            raise RuntimeError(f"simulator process {worker} failed:\n{reply}")
        return dict(reply)

    def ready(self) -> list[int]:
        """Wait until a worker has replied and return all that have."""
        found = wait(self._connections)
        return [number for number, connection in enumerate(self._connections) if connection in found]

    def exchange(self, requests: Mapping[int, Request]) -> dict[int, Any]:
        """Send each slot's request to the worker that owns the slot and return all replies by slot."""
        count = len(self)
        shares = {w: {s: r for s, r in requests.items() if s % count == w} for w in range(count)}
        busy = [worker for worker, share in shares.items() if share]
        for worker in busy:
            self.send(worker, shares[worker])
        replies: dict[int, Any] = {}
        for worker in busy:
            replies.update(self.receive(worker))
        return replies

    def close(self) -> None:
        """Stop the processes."""
        for connection in self._connections:
            with contextlib.suppress(OSError):  # already gone; joined below
                connection.send(None)
        for process in self._processes:
            process.join(STOP_TIMEOUT_S)
            if process.is_alive():
                process.terminate()
                process.join()
        for connection in self._connections:
            connection.close()

    def _died(self, worker: int) -> RuntimeError:
        process = self._processes[worker]
        process.join(STOP_TIMEOUT_S)
        return RuntimeError(
            f"simulator process {worker} died with exit code {process.exitcode}; -9 usually means out of memory: "
            "lower num_workers"
        )


def serve(connection: Connection, spec: WorldSpec) -> None:
    """Answer requests until told to stop; the main function of a worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    worlds: _Worlds | None = None
    try:
        while (requests := connection.recv()) is not None:
            try:
                worlds = worlds or _Worlds(spec)
                connection.send({slot: worlds.answer(slot, request) for slot, request in requests.items()})
            except RoboliftError as error:
                connection.send(error)
            except Exception:
                connection.send(traceback.format_exc())
    except EOFError:
        pass  # the parent is gone
    finally:
        if worlds is not None:
            worlds.close()


class _Worlds:
    """The worlds of one worker and the episodes running in them."""

    def __init__(self, spec: WorldSpec) -> None:
        import_simulator(spec)
        # Only now: these import MuJoCo, which looks at the environment once.
        from robolift.sim.episodes import run_episode  # noqa: PLC0415
        from robolift.sim.experts import Expert  # noqa: PLC0415
        from robolift.sim.world import World  # noqa: PLC0415

        self._run = run_episode
        self._spec = spec
        self._new_world = World
        self._worlds: dict[int, World] = {}  # by slot
        self._running: dict[int, Generator[Observation, np.ndarray, EpisodeRecord]] = {}
        self._expert = Expert(spec.task)

    def answer(self, slot: int, request: Request) -> Observation | EpisodeRecord:
        try:
            if isinstance(request, Begin):
                self._running[slot] = self._run(self._world(slot), request.plan, self._expert)
                return next(self._running[slot])
            return self._running[slot].send(request.actions)
        except StopIteration as finished:
            del self._running[slot]
            record: EpisodeRecord = finished.value
            return record

    def _world(self, slot: int) -> Any:
        if slot not in self._worlds:
            # All worlds of a task have the same meshes: one copy in OpenGL serves them all.
            renderer = next(iter(self._worlds.values())).renderer if self._worlds else None
            self._worlds[slot] = self._new_world(self._spec, renderer)
        return self._worlds[slot]

    def close(self) -> None:
        if self._worlds:
            next(iter(self._worlds.values())).close()


def import_simulator(spec: WorldSpec) -> None:
    """Choose the OpenGL library and import MuJoCo and Meta-World.

    Raises:
        UsageError: If they are not installed, or OpenGL is not.
    """
    graphics.select(spec.gl if spec.cameras else None)
    try:
        with graphics.explained(spec.gl):
            import mujoco  # noqa: F401, PLC0415
        import metaworld  # noqa: F401, PLC0415
    except ModuleNotFoundError as error:
        raise UsageError(f"the simulator is not installed: {error}\n  mend: pip install 'robolift[sim]'") from error
