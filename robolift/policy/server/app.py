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

LOGGED_REFUSALS = 10
"""Of a client; it may send garbage faster than any log is read. How many there were is logged when it goes."""


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


class Reply(NamedTuple):
    """An answer ready to be sent: bytes with how long the policy took, or text."""

    message: bytes | str
    infer_ms: float = 0.0
    failed: bool = False


@dataclass
class _Client:
    """One connection."""

    connection: ServerConnection
    log: Any
    refused: int = 0
    previous_ms: float | None = None


class PolicyServer:
    """Serves one policy to any number of clients, an observation at a time.

    Args:
        served: What answers; it should be warm, its first answer counts like all others.
        max_message_bytes: Longest message a client may send; a longer one ends its connection (close code 1009).

    Attributes:
        stats: What was done so far.
    """

    def __init__(self, served: Served, *, max_message_bytes: int) -> None:
        self.stats = Stats()
        self._served = served
        self._max_message_bytes = max_message_bytes
        self._log = get_logger("serve")
        # One thread: the policy is not asked for two things at once, and the loop stays free to hear and to say "busy".
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="infer")
        self._answering: set[asyncio.Task[Any]] = set()
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
                max_size=self._max_message_bytes,
                max_queue=1,  # messages of one client that wait in memory
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
        if self._stopping:
            return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, "stopping\n")
        # Ready, too: the port is not open before the policy is warm.
        return connection.respond(http.HTTPStatus.OK, "OK\n") if path == "/healthz" else None

    async def _talk(self, connection: ServerConnection) -> None:
        """Serve one client for as long as it is there."""
        client = _Client(connection, self._log.bind(client=_name(connection)))
        self.stats.clients += 1
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
            self.stats.clients -= 1
            client.log.info("client gone", refused=client.refused)

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
        elif reply.failed:
            self.stats.failures += 1
        else:
            self._refuse(client, reply.message)

    def _refuse(self, client: _Client, problem: str) -> None:
        self.stats.refusals += 1
        client.refused += 1
        if client.refused <= LOGGED_REFUSALS:
            client.log.warning("refused", problem=problem.partition("\n")[0])

    def _reply(self, message: bytes | str, previous_ms: float | None) -> Reply:
        """Return the answer to one message, whatever it is; runs in the worker's thread."""
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
            self._log.exception("internal error: please report this")
            return Reply(f"internal error, the server's log says more: {type(error).__name__}", failed=True)

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
