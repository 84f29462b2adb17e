"""Any server that speaks OpenAI's chat completions (vLLM, SGLang, a vendor's), asked politely and patiently."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from typing import Any, NoReturn, TypeVar
from urllib.parse import urlsplit, urlunsplit
from weakref import WeakSet

import httpx2
import openai
from openai.types.chat import ChatCompletion

from robolift.annotators.messages import WITHHELD, Answer, Heard, Question, TransportError
from robolift.annotators.transports.chat import REQUEST_VERSION, THINKING, answer_of, request_body
from robolift.annotators.transports.limits import LONGEST_RETRY_AFTER_S, RateLimit, backoff_s, retry_after_s
from robolift.errors import UsageError
from robolift.logging import get_logger

KEY_VARIABLE = "ROBOLIFT_VLM_API_KEY"
NO_KEY = "none"
CONNECT_S = 10.0
PROBE_S = 30.0
AGAIN = frozenset({408, 409, 425, 429})
STARTING = AGAIN | {502, 503, 504}
"""What a server that is away, starting or busy says of its list of models."""

FILTERED = frozenset({"content_filter", "content_policy_violation"})
"""Codes of an error that is about one question's contents, and not about the call."""

MEND = {
    400: "make the pictures fewer or smaller (max_frames, image_side), or see whether the server takes pictures at all",
    401: f"put a valid key into the environment variable {KEY_VARIABLE}",
    403: f"give the key in the environment variable {KEY_VARIABLE} access to the model",
    404: "check endpoint (it ends in /v1 on most servers) and model, the name under which the server knows it",
    413: "make the pictures fewer or smaller (max_frames, image_side), or raise the server's limit",
}

T = TypeVar("T")


class OpenAITransport:
    """Questions over HTTP; at most ``workers`` of them are under way at the same time.

    Args:
        model: Name under which the server knows the model.
        endpoint: Base address, such as ``http://vllm:8000/v1``.
        workers: Questions under way at once, and episodes that may be asked about.
        requests_per_minute: Most requests a minute, tries again included; 0: no limit.
        timeout_s: Longest wait for one answer.
        max_tries: Tries of one question.
        sleep: Waits some seconds; by default until :meth:`close`, or a failure among questions asked along, at most.

    Raises:
        UsageError: If the endpoint is no address of a server.
    """

    def __init__(
        self,
        *,
        model: str,
        endpoint: str,
        workers: int,
        requests_per_minute: float = 0.0,
        timeout_s: float = 300.0,
        max_tries: int = 6,
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        self.workers = workers
        self.form: Mapping[str, str | int] = {"request_version": REQUEST_VERSION}
        self._model = model
        self._endpoint = _shown(endpoint)
        if urlsplit(endpoint).scheme not in ("http", "https") or not urlsplit(endpoint).hostname:
            raise UsageError(f"endpoint {self._endpoint}: expected an address such as http://vllm:8000/v1")
        self._max_tries = max_tries
        self._closed = threading.Event()
        self._sleep = sleep
        self._limit = RateLimit(requests_per_minute, sleep=sleep or self._closed.wait)
        self._rounds: WeakSet[_Round] = WeakSet()
        self._gate = threading.Lock()
        self._probe_timeout = _timeout(min(timeout_s, PROBE_S))
        self._key = os.environ.get(KEY_VARIABLE, "").strip() or NO_KEY
        self._sockets = _Sockets()
        self._client = _client(endpoint, key=self._key, workers=workers, timeout_s=timeout_s, sockets=self._sockets)
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="question")
        self._knows_thinking = True

    def probe(self) -> None:
        """See whether a server is there: by its list of models, which not every server has or shows.

        Raises:
            TransportError: If none answers after all tries.
            UsageError: If it does not take our key.
        """
        try:
            self._persistently(self._list_models, self._round(None), {"probe": self._endpoint})
        except _GivenUpError:
            raise self._no_more() from None

    def ask(self, questions: Sequence[Question], heard: Heard | None = None) -> list[Answer]:
        """Answer every question, in order; they are under way together.

        After a failure nothing else is sent, but what is under way is paid for, so it is waited for and heard.

        Raises:
            TransportError: If one got no answer after all tries.
            UsageError: If the server refuses one for good.
        """
        if any(question.wants_heads for question in questions):
            raise UsageError(
                f"{self._endpoint} gives words, not the states that progress heads read; "
                "leave endpoint empty to run the model in the step, or choose another protocol than head"
            )
        if self._closed.is_set():
            raise self._no_more()
        together = self._round(heard)
        asked: list[Future[Answer]] = [
            self._pool.submit(self._answer, place, question, together) for place, question in enumerate(questions)
        ]
        try:
            return [future.result() for future in asked]
        except CancelledError:
            raise self._no_more() from None
        except _GivenUpError:
            raise together.failure or self._no_more() from None
        finally:
            for future in asked:
                future.cancel()
            wait([future for future in asked if not future.cancelled()])

    def close(self) -> None:
        """Let go of connections; questions under way, or waiting for another try, fail now."""
        with self._gate:
            self._closed.set()
            for together in self._rounds:
                together.over.set()
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._sockets.shut()
        self._pool.shutdown(wait=True)
        self._client.close()

    def _no_more(self) -> TransportError:
        return TransportError(f"{self._endpoint} is not asked any more")

    def _round(self, heard: Heard | None) -> _Round:
        made = _Round(heard)
        with self._gate:
            self._rounds.add(made)
            if self._closed.is_set():
                made.over.set()
        return made

    def _answer(self, place: int, question: Question, together: _Round) -> Answer:
        try:
            body = request_body(question, model=self._model)
            answer = self._persistently(lambda: self._post(body), together, body)
            if question.wants_logprobs and not answer.logprobs and answer.finish_reason != WITHHELD:
                raise UsageError(
                    f"{self._endpoint} gives no log-probabilities for {self._model}; "
                    "choose another protocol than logprob, such as shuffled"
                )
            if together.heard:
                together.heard(place, answer)
        except _GivenUpError:
            raise
        except Exception as error:
            together.fail(error)
            raise
        return answer

    def _persistently(self, call: Callable[[], T], together: _Round, body: dict[str, Any]) -> T:
        """Try until there is an answer, no try is left, or the round is over."""
        failures = 0
        while True:
            self._limit.acquire()
            if together.over.is_set():
                raise _GivenUpError
            try:
                return call()
            except _TryFailedError as reason:
                failures += 1
                self._wait(reason, together, failures=failures, body=body)

    def _wait(self, reason: _TryFailedError, together: _Round, *, failures: int, body: dict[str, Any]) -> None:
        if together.over.is_set():
            return  # maybe the connection was closed from this side
        if failures >= self._max_tries:
            raise TransportError(
                f"{self._endpoint} gave no answer in {failures} tries, last: {reason}; "
                "see whether the server runs and run this again, or raise max_tries or timeout_s"
            )
        if (reason.retry_after_s or 0) > LONGEST_RETRY_AFTER_S:
            raise TransportError(
                f"{self._endpoint} asks to come back in {reason.retry_after_s:.0f} seconds ({reason}); "
                "run this again then, or lower requests_per_minute"
            )
        seconds = backoff_s(failures, jitter=_jitter(body, failures), retry_after_s=reason.retry_after_s)
        get_logger(__name__).info("asked again later", failures=failures, wait_s=round(seconds, 1), reason=str(reason))
        (self._sleep or together.over.wait)(seconds)

    def _post(self, body: dict[str, Any]) -> Answer:
        if not self._knows_thinking:
            body = {name: value for name, value in body.items() if name != THINKING}
        with self._failures_told():
            try:
                return answer_of(self._client.post("/chat/completions", cast_to=ChatCompletion, body=body))
            except openai.APIStatusError as error:
                if error.code in FILTERED:
                    return Answer(finish_reason=WITHHELD)
                if THINKING not in body or error.status_code not in (400, 422) or THINKING not in _message(error):
                    self._refuse(error)
        self._knows_thinking = False  # a vendor's server that takes no arguments for a chat template
        return self._post(body)

    def _list_models(self) -> None:
        with self._failures_told():
            try:
                self._client.models.with_raw_response.list(timeout=self._probe_timeout)
            except openai.APIStatusError as error:
                if error.status_code == 401 or error.status_code in STARTING:
                    self._refuse(error)

    @contextmanager
    def _failures_told(self) -> Iterator[None]:
        try:
            yield
        except openai.APITimeoutError:
            raise _TryFailedError("no answer in time") from None
        except openai.APIConnectionError as error:
            if "CERTIFICATE_VERIFY_FAILED" in str(error.__cause__):
                raise UsageError(
                    f"{self._endpoint} shows a certificate that is not trusted here: {error.__cause__}; "
                    "name the file with your authority's certificate in the environment variable SSL_CERT_FILE"
                ) from None
            raise _TryFailedError(f"no connection: {error.__cause__ or error}") from None
        except (ValueError, openai.APIResponseValidationError) as error:
            raise _TryFailedError(f"what came back is no chat completion: {error}") from None

    def _refuse(self, error: openai.APIStatusError) -> NoReturn:
        status, message = error.status_code, self._without_key(_message(error))
        used_up = error.code == "insufficient_quota"
        if (status in AGAIN or status >= 500) and not used_up:
            wait_s = retry_after_s(error.response.headers.get("retry-after"))
            raise _TryFailedError(f"{status} {message}", wait_s) from None
        mend = "raise the account's quota" if used_up else MEND.get(status, "see the server's log")
        if status in (400, 422) and "logprobs" in message:
            mend = "choose another protocol than logprob, such as shuffled"
        raise UsageError(f"{self._endpoint} refuses model {self._model}: {status} {message}; {mend}") from None

    def _without_key(self, text: str) -> str:
        return text if self._key == NO_KEY else text.replace(self._key, "***")


class _TryFailedError(Exception):
    """One try failed, and another may not."""

    def __init__(self, reason: str, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class _GivenUpError(Exception):
    """A question that is not asked any more: another one of its round failed, or the transport was closed."""


class _Round:
    """Questions that are asked together.

    Attributes:
        heard: Is told of each answer.
        over: Set when nothing more is sent.
        failure: Why, if a question failed.
    """

    def __init__(self, heard: Heard | None) -> None:
        self.heard = heard
        self.over = threading.Event()
        self.failure: Exception | None = None

    def fail(self, error: Exception) -> None:
        """End the round; the first reason is kept."""
        self.failure = self.failure or error
        self.over.set()


class _Sockets:
    """The open connections, so that a thread that waits on one for minutes can be woken.

    Closing a client from another thread does not do that.
    """

    def __init__(self) -> None:
        self._open: WeakSet[socket.socket] = WeakSet()
        self._lock = threading.Lock()

    def note(self, event: str, facts: dict[str, Any]) -> None:
        """Be told of a request's steps (httpx's ``trace`` extension)."""
        if event.endswith((".connect_tcp.complete", ".start_tls.complete")):
            with self._lock:
                self._open.add(facts["return_value"].get_extra_info("socket"))

    def shut(self) -> None:
        """End every connection; whoever reads from it sees its end."""
        with self._lock:
            for connection in self._open:
                with suppress(OSError):  # it has ended by itself
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)


def _client(endpoint: str, *, key: str, workers: int, timeout_s: float, sockets: _Sockets) -> openai.OpenAI:
    def send(request: httpx2.Request) -> None:
        request.extensions["trace"] = sockets.note
        # The package describes this machine to the server, and names accounts that the environment holds for others.
        for name in [name for name in request.headers if name.startswith(("x-stainless-", "openai-"))]:
            del request.headers[name]

    limits = httpx2.Limits(max_connections=workers, max_keepalive_connections=workers)
    return openai.OpenAI(
        api_key=key,
        base_url=endpoint,
        max_retries=0,  # tries are counted and waited for here
        timeout=_timeout(timeout_s),
        # A proxy named in the environment would see every picture. The transport may still learn of a private CA there.
        http_client=httpx2.Client(
            transport=httpx2.HTTPTransport(limits=limits), trust_env=False, event_hooks={"request": [send]}
        ),
    )


def _timeout(seconds: float) -> httpx2.Timeout:
    return httpx2.Timeout(seconds, connect=min(seconds, CONNECT_S))


def _message(error: openai.APIStatusError) -> str:
    body = error.body
    if isinstance(body, dict):
        return str(body.get("message") or body)[:500]
    return str(body or error.response.reason_phrase)[:500]


def _jitter(body: dict[str, Any], failures: int) -> float:
    """Return a number in [0, 1) that belongs to this question and try: no generator is shared between threads."""
    digest = hashlib.sha256(f"{failures}:{json.dumps(body, sort_keys=True)}".encode()).digest()
    return int.from_bytes(digest[:8]) / 2.0**64


def _shown(endpoint: str) -> str:
    """Return an address without a name and password in it."""
    parts = urlsplit(endpoint)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=""))
