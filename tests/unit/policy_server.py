"""The policy server for tests: the real one, on loopback, in a thread of this process or in a process of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
from toy_policies import save_small

from robolift import storage
from robolift.manifest import Manifest, Output, Plan
from robolift.policy.server.app import Limits, PolicyServer, Served
from robolift.schema import Kind

MIB = 2**20
LIMITS = Limits(max_message_bytes=MIB, max_clients=8, hung_after_s=60)


class Echo:
    """Answers with twice the state it is shown; ``wait`` holds it until ``go``, ``fail`` is its bug."""

    def __init__(self) -> None:
        self.metadata = {"cameras": [], "action_dim": 2}
        self.go, self.entered = threading.Event(), threading.Event()

    def infer(self, observation: Mapping[Any, Any]) -> dict[str, Any]:
        if observation.get("wait"):
            self.entered.set()
            assert self.go.wait(30)
        if observation.get("fail"):
            raise ZeroDivisionError("secret")
        return {"actions": np.asarray(observation["state"], np.float32)[None] * 2}


class Asked:
    """What a server says over HTTP."""

    address: str

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.address.replace("ws://", "http://") + path, timeout=20)

    def stats(self) -> dict[str, Any]:
        return dict(self.get("/stats").json())

    def await_stats(self, **wanted: int) -> dict[str, Any]:
        """Return its counts once they are those; an answer is counted after it was sent."""
        deadline = time.monotonic() + 20
        while not wanted.items() <= (found := self.stats()).items():
            assert time.monotonic() < deadline, found
            time.sleep(0.02)
        return found


class Running(Asked):
    """A server in a thread."""

    def __init__(self, served: Served, **changes: float) -> None:
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = self.listening.getsockname()[1]
        self.address = f"ws://127.0.0.1:{self.port}"
        self.server = PolicyServer(served, limits=replace(LIMITS, **changes))
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        self._loop.run_until_complete(self.server.run(self.listening, self._stop))
        self._loop.close()

    def tell(self) -> None:
        """Tell it to stop, as a signal does."""
        self._loop.call_soon_threadsafe(self._stop.set)

    def join(self) -> None:
        self._thread.join(30)
        assert not self._thread.is_alive()
        self.listening.close()


@contextmanager
def serving(served: Served, **changes: float) -> Iterator[Running]:
    running = Running(served, **changes)
    try:
        yield running
    finally:
        if not running._loop.is_closed():
            running.tell()
        running.join()


def publish_small(root: Any, *, kind: Kind = Kind.POLICY, **changes: Any) -> Manifest:
    """Publish the small policy as ``train_policy`` does its own."""
    digest = storage.digest_of([sorted(map(str, changes.items()))])
    plan = Plan(stage="train_policy", kind=kind, root=str(root), config={}, inputs={}, code="0" * 16, digest=digest)
    output = Output(plan)
    save_small(output.path, **changes)
    return output.publish({})


class Process(Asked):
    """The command as a process, to be told to stop; a context manager that kills what was not."""

    def __init__(self, checkpoint: str, *words: str) -> None:
        command = [sys.executable, "-m", "robolift", "serve", "--checkpoint", checkpoint, "--port", "0", *words]
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115  (a pipe that nobody reads would hold the server up)
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=self._log, text=True, env={**os.environ}
        )
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().removeprefix("policy server: ").strip()
        assert self.address, self.end()

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.end()

    def end(self, number: int = signal.SIGKILL) -> tuple[int, str]:
        """Send a signal; returns the exit code and the log."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        self.process.communicate(timeout=60)
        with self._log:
            self._log.seek(0)
            return self.process.returncode, self._log.read()
