"""A real server that speaks OpenAI's chat completions, for tests: it plays a script and knows the synthetic recordings.

In a test::

    with OpenAIServer("429:0", "cut", "good") as server:   # the last one repeats
        transport = open_transport(transport="openai", model=MODEL, endpoint=server.url, ...)
        ...
        assert [request.played for request in server.requests] == ["429:0", "cut", "good"]

As a process, which prints its address and serves until it is ended::

    python tests/openai_server.py --port 0 --script 500,good

``good`` looks at the pictures it was sent (a red square that moves to a green goal, see ``synthetic.py``) and answers
what the question asks for: a probability of "True", percents, a grade, or a signed change.
"""

from __future__ import annotations

import argparse
import json
import math
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from perfect_model import decoded, progress_of, right_answer

MODEL = "fake-vlm"
GARBLED = "I am afraid that I could not say."
SILENCE_S = 60


@dataclass(frozen=True)
class Request:
    """What the server was sent, and what it played.

    Attributes:
        body: The request's JSON, as it came.
        raw: The same in bytes.
        headers: With lower-case names.
        path: Of the request line.
        played: The entry of the script.
        at_s: Monotonic clock.
    """

    body: dict[str, Any]
    raw: bytes
    headers: Mapping[str, str]
    path: str
    played: str
    at_s: float = field(default_factory=time.monotonic)

    @cached_property
    def pictures(self) -> list[np.ndarray]:
        """Every picture, (H, W, 3) uint8, in reading order."""
        return [decoded(url) for url in _urls(self.body)]

    @property
    def text(self) -> str:
        """Every word of the conversation."""
        return "\n".join(part for message in self.body["messages"] for part in _words(message))

    @property
    def progress(self) -> list[float]:
        """Of each picture."""
        return [progress_of(picture) for picture in self.pictures]


Say = Callable[[Request], str]


class OpenAIServer:
    """Serves on a free loopback port while it is entered.

    Args:
        script: What to do with one request after another; the last entry repeats. ``good``: the right answer.
            ``garbled``: words that mean nothing. ``say:TEXT``: that text. ``think``: the right answer behind thoughts.
            ``slow:S``: the right answer after S seconds. ``hold``: the right answer, but not before :meth:`release`.
            ``cut``: the connection ends before an answer, ``half``: amid it. ``html``: a page with status 200.
            ``429:S``: that status with ``Retry-After: S``; ``500``, ``401`` and so on alike, S may be left out.
            ``quota``: 429 for good. ``nologprobs``: the right answer without them. ``filter``: 400, as the filter of
            contents does it; ``filtered``: 200, and no answer, likewise. ``twisted``: the right answer after
            :attr:`twist` had its way with it. ``nothink``: 400 to whoever sends ``chat_template_kwargs``, the right
            answer to others.
        say: Gives the right answer's text instead of :func:`right_answer`.
        port: 0: any.
        tls: Certificate to show; none: plain HTTP.

    Attributes:
        requests: Everything that was asked, in the order of arrival.
        twist: Changes the JSON of an answer.
        models: Status of the list of models, one request after another; the last one repeats.
        probes: How often that was asked for.
        most_at_once: Most requests that were under way together.
    """

    def __init__(self, *script: str, say: Say | None = None, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.script = list(script) or ["good"]
        self.say = say or right_answer
        self.requests: list[Request] = []
        self.twist: Callable[[dict[str, Any]], object] = dict
        self.models = [200]
        self.probes = 0
        self.at_once = 0
        self.most_at_once = 0
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._released = threading.Event()
        self._connections = 0
        self._http = _Server(("127.0.0.1", port), _Handler)
        self._http.owner = self
        self._scheme = "https" if tls else "http"
        if tls:
            self._http.socket = tls.wrap_socket(self._http.socket, server_side=True)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        """The base address, with /v1."""
        return f"{self._scheme}://127.0.0.1:{self._http.server_address[1]}/v1"

    def __enter__(self) -> OpenAIServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.release()
        self._http.shutdown()
        self._http.server_close()

    def play(self, *script: str) -> None:
        """Forget what was asked and start another script."""
        with self._lock:
            self.script = list(script)
            self.requests.clear()

    def record(self, make: Callable[[str], Request]) -> Request:
        with self._lock:
            played = self.script[min(len(self.requests), len(self.script) - 1)]
            request = make(played)
            self.requests.append(request)
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            return request

    def served(self) -> None:
        with self._lock:
            self.at_once -= 1

    def wait(self, seconds: float) -> None:
        """Sleep, but not beyond the server's end."""
        self._ended.wait(seconds)

    def release(self) -> None:
        """Let what is held be answered."""
        self._released.set()

    def wait_for_release(self) -> None:
        self._released.wait()

    def connected(self, by: int) -> None:
        with self._lock:
            self._connections += by

    def await_silence(self) -> None:
        """Wait until every client is gone: what a killed one had sent is in ``requests`` then, and nothing follows."""
        deadline = time.monotonic() + SILENCE_S
        while self._connections:
            assert time.monotonic() < deadline, f"{self._connections} clients are still there"
            time.sleep(0.01)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256
    owner: OpenAIServer

    def process_request(self, request: Any, client_address: Any) -> None:
        self.owner.connected(1)
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.owner.connected(-1)

    def handle_error(self, *_: object) -> None:
        """A client that went away is part of the play."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, *_: object) -> None:
        """Nothing: tests read `requests`."""

    def do_GET(self) -> None:
        owner = self.server.owner
        status = owner.models[min(owner.probes, len(owner.models) - 1)] if self.path == "/v1/models" else 404
        owner.probes += 1
        self._json(status, {"object": "list", "data": [{"id": MODEL, "object": "model"}]} if status == 200 else {})

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        body = json.loads(raw)
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = self.server.owner.record(lambda played: Request(body, raw, headers, self.path, played))
        try:
            self._play(request)
        finally:
            self.server.owner.served()

    def _play(self, request: Request) -> None:
        name, _, argument = request.played.partition(":")
        if self.path != "/v1/chat/completions":
            self._json(404, {"error": {"message": f"no such path {self.path}"}})
        elif name.isdigit():
            self._refuse(int(name), argument)
        else:
            getattr(self, f"_{name}")(request, argument)

    def _good(self, request: Request, _: str) -> None:
        self._answer(request, self.server.owner.say(request))

    def _garbled(self, request: Request, _: str) -> None:
        self._answer(request, GARBLED)

    def _say(self, request: Request, text: str) -> None:
        self._answer(request, text)

    def _think(self, request: Request, _: str) -> None:
        self._answer(request, f"<think>\nThe square, [1, 2]...\n</think>\n\n{self.server.owner.say(request)}")

    def _slow(self, request: Request, seconds: str) -> None:
        self.server.owner.wait(float(seconds))
        self._good(request, "")

    def _hold(self, request: Request, _: str) -> None:
        self.server.owner.wait_for_release()
        self._good(request, "")

    def _cut(self, *_: object) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def _half(self, *_: object) -> None:
        self._send(200, "application/json", b'{"id": "chatcmpl-1", "choi', length=1000)
        self._cut()

    def _html(self, *_: object) -> None:
        self._send(200, "text/html", b"<html>Please log in</html>")

    def _quota(self, *_: object) -> None:
        error = {"message": "You exceeded your current quota", "code": "insufficient_quota"}
        self._json(429, {"error": error})

    def _filter(self, *_: object) -> None:
        error = {"message": "The response was filtered", "code": "content_filter", "type": "invalid_request_error"}
        self._json(400, {"error": error})

    def _filtered(self, request: Request, _: str) -> None:
        self._answer(request, "", ends="content_filter", logprobs=False)

    def _twisted(self, request: Request, _: str) -> None:
        self._answer(request, self.server.owner.say(request), twist=self.server.owner.twist)

    def _nologprobs(self, request: Request, _: str) -> None:
        self._answer(request, self.server.owner.say(request), logprobs=False)

    def _nothink(self, request: Request, _: str) -> None:
        if "chat_template_kwargs" in request.body:
            self._json(400, {"error": {"message": "Unrecognized request argument supplied: chat_template_kwargs"}})
        else:
            self._good(request, "")

    def _refuse(self, status: int, retry_after: str) -> None:
        # As some servers do, it repeats the key it was given.
        message = f"scripted {status} for {self.headers['Authorization']}"
        self._json(status, {"error": {"message": message}}, {"Retry-After": retry_after} if retry_after else {})

    def _answer(
        self,
        request: Request,
        text: str,
        *,
        logprobs: bool = True,
        ends: str = "",
        twist: Callable[[dict[str, Any]], object] = dict,
    ) -> None:
        choice: dict[str, Any] = {
            "index": 0,
            "message": {"role": "assistant", "content": text},
            "finish_reason": ends or ("length" if request.body["max_tokens"] == 1 else "stop"),
            "logprobs": None,
        }
        if request.body.get("logprobs") and logprobs:
            choice["logprobs"] = {"content": [_first_token(request)]}
            choice["message"]["content"] = choice["logprobs"]["content"][0]["token"]
        tokens = len(request.text.split()) + 64 * len(_urls(request.body))
        usage = {"prompt_tokens": tokens, "completion_tokens": 1}
        if request.body["max_tokens"] != 1:
            usage["completion_tokens"] = len(text.split())
        usage["total_tokens"] = sum(usage.values())
        reply = {"id": "chatcmpl-1", "object": "chat.completion", "created": 0, "model": request.body["model"]}
        reply |= {"choices": [choice], "usage": usage}
        twist(reply)
        self._json(200, reply)

    def _json(self, status: int, document: object, headers: Mapping[str, str] | None = None) -> None:
        self._send(status, "application/json", json.dumps(document).encode(), headers)

    def _send(
        self,
        status: int,
        kind: str,
        content: bytes,
        headers: Mapping[str, str] | None = None,
        *,
        length: int | None = None,
    ) -> None:
        self.send_response(status)
        fields = {"Content-Type": kind, "Content-Length": str(length or len(content)), **(headers or {})}
        for name, value in fields.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)
        self.wfile.flush()


def _words(message: Mapping[str, Any]) -> list[str]:
    content = message["content"]
    if isinstance(content, str):
        return [content]
    return [part["text"] for part in content if part["type"] == "text"]


def _urls(body: Mapping[str, Any]) -> list[str]:
    return [
        part["image_url"]["url"]
        for message in body["messages"]
        if isinstance(message["content"], list)
        for part in message["content"]
        if part["type"] == "image_url"
    ]


def _first_token(request: Request) -> dict[str, Any]:
    """P("True") is the progress of the last picture; what is left goes to "False" and, a little, to other tokens."""
    done = min(max(request.progress[-1], 0.001), 0.99) if request.pictures else 0.5
    odds = {"True": done, "False": 0.995 - done, "The": 0.005}
    tops = [{"token": token, "logprob": math.log(p), "bytes": list(token.encode())} for token, p in odds.items()]
    tops.sort(key=lambda top: -top["logprob"])
    return {**tops[0], "top_logprobs": tops[: request.body["top_logprobs"]]}


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--script", default="good", help="entries, separated by commas")
    options = parser.parse_args(arguments)
    with OpenAIServer(*options.script.split(","), port=options.port) as server:
        sys.stdout.write(f"{server.url}\n")
        sys.stdout.flush()
        threading.Event().wait()


if __name__ == "__main__":
    main(sys.argv[1:])
