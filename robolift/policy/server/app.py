"""The server: openpi's websocket protocol around anything that answers observations.

A client gets one binary message of metadata, then for each observation it sends an answer: a binary message with the
actions and ``server_timing``, or a text message that says what is wrong, which openpi's client raises as an error. The
order of messages and the form of answers are those of openpi's ``websocket_policy_server``. Unlike there a refusal
does not end the connection, and one client's observation does not keep the server from hearing the others.
"""

from __future__ import annotations

import asyncio
import http
import json
import logging
import socket
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode
from websockets.http11 import Request, Response

from robolift.errors import DataError, RoboliftError
from robolift.logging import get_logger
from robolift.policy.server import wire
from robolift.policy.server.latency import Stats

FINISH_S = 10.0
"""How long answers under way may take once the server was told to stop."""
CLOSE_S = 5.0
"""How long a client may take to say goodbye."""

LOGGED_PROBLEMS = 10
"""Refusals, and failures, of a client; it may send garbage faster than any log is read. How many there were is logged
when it goes."""
MESSAGES_HELD = 2
"""Of a client at most: one that is answered, one that waits."""


class Served(Protocol):
    """What can be served."""

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What a client is told first; plain values, ready for JSON."""

    def infer(self, observation: Mapping[Any, Any]) -> dict[str, Any]:
        """Return the answer to an observation; called by one thread at a time.

        Raises:
            RoboliftError: If the observation can't be answered; its text is the client's answer.
        """


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What clients may take; messages of all clients together stay below :attr:`message_bytes`.

    Attributes:
        max_message_bytes: Longest message a client may send; a longer one ends its connection (close code 1009).
        max_clients: Connections at once; a further client is told 503.
        hung_after_s: An answer that takes longer means that the policy hangs, which ``/livez`` says.
    """

    max_message_bytes: int
    max_clients: int
    hung_after_s: float

    @property
    def message_bytes(self) -> int:
        """Bytes of messages that are held at once, at most."""
        return MESSAGES_HELD * self.max_clients * self.max_message_bytes


class Reply(NamedTuple):
    """An answer ready to be sent: bytes with how long the policy took, or text with the error if it is a bug."""

    message: bytes | str
    infer_ms: float = 0.0
    failure: Exception | None = None


@dataclass
class _Client:
    """One connection."""

    connection: ServerConnection
    log: Any
    refused: int = 0
    failed: int = 0
    previous_ms: float | None = None


class PolicyServer:
    """Serves one policy to any number of clients, an observation at a time.

    Args:
        served: What answers; it should be warm, its first answer counts like all others.
        limits: What clients may take.

    Attributes:
        stats: What was done so far.
    """

    def __init__(self, served: Served, *, limits: Limits) -> None:
        self.stats = Stats()
        self._served = served
        self._limits = limits
        self._log = get_logger("serve")
        # One thread: the policy is not asked for two things at once, and the loop stays free to hear and to say "busy".
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="infer")
        self._answering: set[asyncio.Task[Any]] = set()
        self._talking: set[ServerConnection] = set()
        self._began: float | None = None  # of the answer that the worker is at; monotonic
        self._stopping = False

    async def run(self, listening: socket.socket, stop: asyncio.Event) -> None:
        """Serve on a bound socket until ``stop`` is set; then finish what is under way and say goodbye to clients."""
        # The library's own log is of clients that break off or talk another protocol: nobody can mend that here.
        silent = logging.getLogger(f"{__name__}.websockets")
        silent.setLevel(logging.CRITICAL)
        try:
            async with serve(
                self._talk,
                sock=listening,
                process_request=self._over_http,
                origins=[None],  # robots send no Origin; a web page somewhere else that does is not let in
                compression=None,
                max_size=self._limits.max_message_bytes,
                max_queue=0,  # not a frame is read while one waits
                close_timeout=CLOSE_S,
                logger=silent,
            ) as server:
                await stop.wait()
                await self._finish(server)
        finally:
            self._worker.shutdown(wait=False, cancel_futures=True)
            self._log.info("served", **self.stats.to_dict())

    async def _finish(self, server: Server) -> None:
        """Let answers under way reach their clients; those that take too long are given up."""
        self._stopping = True
        self._log.info("stopping", under_way=len(self._answering), clients=len(server.connections))
        if not self._answering:
            return
        _, late = await asyncio.wait(self._answering, timeout=FINISH_S)
        for task in late:
            task.cancel()

    def _over_http(self, connection: ServerConnection, request: Request) -> Response | None:
        """Answer what is asked without a websocket; None for what goes on to become one."""
        path = request.path.partition("?")[0]
        if path == "/stats":
            # ``respond`` writes plain text; the header is a list of lines, which setting would lengthen.
            response = connection.respond(http.HTTPStatus.OK, json.dumps(self.stats.to_dict()) + "\n")
            del response.headers["Content-Type"]
            response.headers["Content-Type"] = "application/json"
            return response
        if problem := self._problem(path, connection):
            return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, f"{problem}\n")
        # Ready, too: the port is not open before the policy is warm.
        return connection.respond(http.HTTPStatus.OK, "OK\n") if path in ("/healthz", "/livez") else None

    def _problem(self, path: str, connection: ServerConnection) -> str:
        """Return why what is asked for can't be had now; empty if it can."""
        if path == "/livez":
            began = self._began
            hung = began is not None and time.monotonic() - began > self._limits.hung_after_s
            return f"an answer takes longer than {self._limits.hung_after_s:g} s: the policy hangs" if hung else ""
        if self._stopping or path == "/healthz":
            return "stopping" if self._stopping else ""
        # Who died while its message waits still holds it, who was just let in is not talking yet.
        count = len(self._talking | connection.server.connections)
        return f"{count} clients are connected, and no more may be" if count >= self._limits.max_clients else ""

    async def _talk(self, connection: ServerConnection) -> None:
        """Serve one client for as long as it is there."""
        client = _Client(connection, self._log.bind(client=_name(connection)))
        self._talking.add(connection)
        self.stats.clients = len(self._talking)
        client.log.info("client connected")
        try:
            await connection.send(wire.pack(self._served.metadata))
            async for message in connection:
                if self._stopping:
                    break
                task = asyncio.create_task(self._answer(client, message))
                self._answering.add(task)
                task.add_done_callback(self._answering.discard)
                # Only the answer is cancelled, when it takes too long after the server was told to stop.
                with suppress(asyncio.CancelledError):
                    await task
            await connection.close(CloseCode.GOING_AWAY)
        except ConnectionClosed as closed:
            if closed.sent is not None and closed.sent.code == CloseCode.MESSAGE_TOO_BIG:
                self._refuse(client, closed.sent.reason)
        finally:
            self._talking.discard(connection)
            self.stats.clients = len(self._talking)
            client.log.info("client gone", refused=client.refused, failed=client.failed)

    async def _answer(self, client: _Client, message: bytes | str) -> None:
        """Answer one message."""
        arrived = time.perf_counter()
        loop = asyncio.get_running_loop()
        reply = await loop.run_in_executor(self._worker, self._reply, message, client.previous_ms)
        await client.connection.send(reply.message)
        client.previous_ms = (time.perf_counter() - arrived) * 1000
        if isinstance(reply.message, bytes):
            self.stats.answers += 1
            self.stats.infer_ms.append(reply.infer_ms)
            self.stats.answer_ms.append(client.previous_ms)
        elif reply.failure is not None:
            self._fail(client, reply.failure)
        else:
            self._refuse(client, reply.message)

    def _refuse(self, client: _Client, problem: str) -> None:
        self.stats.refusals += 1
        client.refused += 1
        if client.refused <= LOGGED_PROBLEMS:
            client.log.warning("refused", problem=problem.partition("\n")[0])

    def _fail(self, client: _Client, failure: Exception) -> None:
        self.stats.failures += 1
        client.failed += 1
        if client.failed <= LOGGED_PROBLEMS:
            client.log.error("internal error: please report this", exc_info=failure)

    def _reply(self, message: bytes | str, previous_ms: float | None) -> Reply:
        """Return the answer to one message, whatever it is; runs in the worker's thread."""
        self._began = time.monotonic()
        try:
            observation = self._read(message)
            began = time.perf_counter()
            answer = self._served.infer(observation)
            infer_ms = (time.perf_counter() - began) * 1000
            timing = {"infer_ms": infer_ms}
            if previous_ms is not None:
                timing["prev_total_ms"] = previous_ms
            return Reply(wire.pack({**answer, "server_timing": timing}), infer_ms)
        except RoboliftError as error:
            return Reply(str(error))
        except Exception as error:
            return Reply(f"internal error, the server's log says more: {type(error).__name__}", failure=error)
        finally:
            self._began = None

    def _read(self, message: bytes | str) -> Mapping[Any, Any]:
        if isinstance(message, str):
            raise DataError("a text message", expected="a binary one: msgpack, as openpi-client packs it")
        observation = wire.unpack(message)
        if not isinstance(observation, dict):
            raise DataError(
                f"the message is a {type(observation).__name__}",
                expected="a map: images by camera key, states by state key, the prompt",
            )
        return observation


def _name(connection: ServerConnection) -> str:
    """Return address and port of a client; empty when it is gone already."""
    with suppress(TypeError, IndexError):
        return ":".join(map(str, connection.remote_address[:2]))
    return ""
