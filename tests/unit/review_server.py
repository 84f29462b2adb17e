"""A labelling server for tests: the real one, on loopback, in a thread of this process or in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from review_events import ulid

from robolift import __main__ as command
from robolift.annotators.review import cli

TOKENS = {name: f"{name}-token-0123456789" for name in ("alice", "bob", "carol")}


class Page:
    """What a person's browser does: one session, which takes items and sends events."""

    def __init__(self, address: str, name: str = "alice", **headers: str) -> None:
        self.name = name
        origin = headers.pop("origin", address)
        self.client = httpx.Client(
            base_url=address,
            headers={"authorization": f"Bearer {TOKENS.get(name, name)}", "origin": origin, **headers},
            timeout=120,
        )
        self.seq = 0
        self.facts: dict[str, Any] = {}

    def open(self) -> Page:
        answer = self.get("/api/session")
        answer.raise_for_status()
        self.facts = answer.json()
        self.client.headers["x-robolift-csrf"] = self.facts["csrf"]
        return self

    def get(self, path: str, **given: Any) -> httpx.Response:
        return self.client.get(path, **given)

    def post(self, path: str, **body: Any) -> httpx.Response:
        return self.client.post(path, json=body)

    def next(self, mode: str = "episode", **given: Any) -> dict[str, Any]:
        answer = self.post("/api/next", mode=mode, **given)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def take(self, item: str) -> int:
        answer = self.post("/api/lease", item=item, action="take")
        assert answer.status_code == 200, answer.text
        return int(answer.json()["epoch"])

    def event(self, op: str, value: Any = None, start: int | None = None, stop: int | None = None) -> dict[str, Any]:
        self.seq += 1
        made = {
            "ulid": ulid(hash((self.facts["session"], self.seq)) % 2**80),
            "seq": self.seq,
            "op": op,
            "client_ms": 0,
        }
        return {**made, "value": value, "from": start, "to": stop}

    def send(self, item: str, epoch: int, *events: dict[str, Any], **given: Any) -> httpx.Response:
        return self.post("/api/events", item=item, epoch=epoch, events=list(events), **given)

    def do(self, item: str, *events: dict[str, Any], epoch: int | None = None) -> list[str]:
        answer = self.send(item, self.take(item) if epoch is None else epoch, *events)
        assert answer.status_code == 200, answer.text
        return list(answer.json()["stored"])

    def complete(self, item: str, length: int, *, tri: int = 1, outcome: str = "success") -> None:
        paint, said = self.event("paint", tri, 0, length), self.event("outcome", outcome, length - 1)
        self.do(item, paint, said, self.event("complete"))

    def close(self) -> None:
        self.client.close()


def write_tokens(folder: Path) -> str:
    path = folder / "tokens.yaml"
    path.write_text("".join(f"{name}: {token}\n" for name, token in TOKENS.items()))
    return str(path)


def arguments(dataset_uri: str, labels: str, *more: str) -> list[str]:
    return ["review", "--dataset", dataset_uri, "--labels", labels, "--port", "0", *more]


@contextmanager
def serving(*words: str) -> Iterator[str]:
    """Serve in a thread and give the address, without a slash at the end."""
    lines = cli.serve(command._parser().parse_args(words))
    address = next(lines).removeprefix("labelling page: ")
    started: list[uvicorn.Server] = []
    run = uvicorn.Server.run

    def note(server: uvicorn.Server, *args: Any, **given: Any) -> None:
        started.append(server)
        run(server, *args, **given)

    uvicorn.Server.run = note  # type: ignore[method-assign]
    thread = threading.Thread(target=lambda: list(lines), daemon=True)
    thread.start()
    try:
        base = address.partition("?")[0].rstrip("/")
        await_health(base)
        yield address if "?" in address else base
    finally:
        uvicorn.Server.run = run  # type: ignore[method-assign]
        for server in started:
            server.should_exit = True
        thread.join(timeout=120)


def await_health(base: str) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{base}/healthz").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    raise AssertionError(f"no server at {base}")


class Process:
    """The server as a process, to be killed."""

    def __init__(self, *words: str) -> None:
        command_line = [sys.executable, "-m", "robolift", *words]
        self.process = subprocess.Popen(command_line, stdout=subprocess.PIPE, text=True, env={**os.environ})
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().removeprefix("labelling page: ").strip()
        self.base = self.address.partition("?")[0].rstrip("/")
        assert self.base, "the server did not start"
        await_health(self.base)

    def end(self, number: int = signal.SIGKILL) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(timeout=120)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code
