"""Any server that speaks OpenAI's chat completions (vLLM, SGLang, a vendor's), asked politely and patiently."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NoReturn
from urllib.parse import urlsplit, urlunsplit

import httpx2
import openai
from openai.types.chat import ChatCompletion

from robolift.annotators.messages import Answer, Question, TransportError
from robolift.annotators.transports.chat import THINKING, answer_of, request_body
from robolift.annotators.transports.limits import LONGEST_RETRY_AFTER_S, RateLimit, backoff_s, retry_after_s
from robolift.errors import UsageError
from robolift.logging import get_logger

KEY_VARIABLE = "ROBOLIFT_VLM_API_KEY"
NO_KEY = "none"
CONNECT_S = 10.0
AGAIN = frozenset({408, 409, 425, 429})

MEND = {
    400: "make the pictures fewer or smaller (max_frames, image_side), or see whether the server takes pictures at all",
    401: f"put a valid key into the environment variable {KEY_VARIABLE}",
    403: f"give the key in the environment variable {KEY_VARIABLE} access to the model",
    404: "check endpoint (it ends in /v1 on most servers) and model, the name under which the server knows it",
    413: "make the pictures fewer or smaller (max_frames, image_side), or raise the server's limit",
}


class OpenAITransport:
    """Questions over HTTP; at most ``workers`` of them are under way at the same time.

    Args:
        model: Name under which the server knows the model.
        endpoint: Base address, such as ``http://vllm:8000/v1``.
        workers: Questions under way at once, and episodes that may be asked about.
        requests_per_minute: Most requests a minute, tries again included; 0: no limit.
        timeout_s: Longest wait for one answer.
        max_tries: Tries of one question.
        sleep: Waits some seconds; by default until :meth:`close` at the latest.
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
        self._model = model
        self._endpoint = _shown(endpoint)
        self._max_tries = max_tries
        self._closed = threading.Event()
        self._sleep = sleep or self._closed.wait
        self._limit = RateLimit(requests_per_minute, sleep=self._sleep)
        self._key = os.environ.get(KEY_VARIABLE) or NO_KEY
        self._client = _client(endpoint, key=self._key, workers=workers, timeout_s=timeout_s)
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="question")
        self._knows_thinking = True

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        """Answer every question, in order; they are under way together.

        Raises:
            TransportError: If one got no answer after all tries.
            UsageError: If the server refuses one for good.
        """
        if any(question.wants_heads for question in questions):
            raise UsageError(
                f"{self._endpoint} gives words, not the states that progress heads read; "
                "leave endpoint empty to run the model in the step, or choose another protocol than head"
            )
        dropped = threading.Event()
        asked: list[Future[Answer]] = [self._pool.submit(self._answer, question, dropped) for question in questions]
        try:
            return [future.result() for future in asked]
        finally:
            dropped.set()  # after a failure nobody waits for the rest of these questions
            for future in asked:
                future.cancel()

    def close(self) -> None:
        """Let go of connections; questions that wait for another try fail now."""
        self._closed.set()
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    def _answer(self, question: Question, dropped: threading.Event) -> Answer:
        body = request_body(question, model=self._model)
        failures = 0
        while True:
            self._limit.acquire()
            if self._closed.is_set() or dropped.is_set():
                raise TransportError(f"{self._endpoint} is not asked any more")
            try:
                answer = self._post(body)
            except _TryFailedError as reason:
                failures += 1
                self._wait(reason, failures=failures, body=body)
                continue
            if question.wants_logprobs and not answer.logprobs:
                raise UsageError(
                    f"{self._endpoint} gives no log-probabilities for {self._model}; "
                    "choose another protocol than logprob, such as shuffled"
                )
            return answer

    def _wait(self, reason: _TryFailedError, *, failures: int, body: dict[str, Any]) -> None:
        if self._closed.is_set():
            return  # the connection was closed from this side
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
        self._sleep(seconds)

    def _post(self, body: dict[str, Any]) -> Answer:
        if not self._knows_thinking:
            body = {name: value for name, value in body.items() if name != THINKING}
        try:
            return answer_of(self._client.post("/chat/completions", cast_to=ChatCompletion, body=body))
        except openai.APITimeoutError:
            raise _TryFailedError("no answer in time") from None
        except openai.APIConnectionError as error:
            raise _TryFailedError(f"no connection: {error.__cause__ or error}") from None
        except openai.APIStatusError as error:
            if THINKING in body and error.status_code in (400, 422) and THINKING in _message(error):
                self._knows_thinking = False  # a vendor's server that takes no arguments for a chat template
                return self._post(body)
            self._refuse(error)
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


def _client(endpoint: str, *, key: str, workers: int, timeout_s: float) -> openai.OpenAI:
    limits = httpx2.Limits(max_connections=workers, max_keepalive_connections=workers)
    return openai.OpenAI(
        api_key=key,
        base_url=endpoint,
        max_retries=0,  # tries are counted and waited for here
        timeout=httpx2.Timeout(timeout_s, connect=min(timeout_s, CONNECT_S)),
        # A proxy named in the environment would see every picture. The transport may still learn of a private CA there.
        http_client=httpx2.Client(
            transport=httpx2.HTTPTransport(limits=limits), trust_env=False, event_hooks={"request": [_tell_less]}
        ),
    )


def _tell_less(request: httpx2.Request) -> None:
    """Take off the headers in which the package describes this machine, and those of accounts in the environment."""
    for name in [name for name in request.headers if name.startswith(("x-stainless-", "openai-"))]:
        del request.headers[name]


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
