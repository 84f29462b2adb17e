"""What every request must pass before the application sees it: a known host, a known person, our own page."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from robolift.annotators.review.identity import Identity, RefusedError, Sessions
from robolift.logging import get_logger

CSRF_HEADER = "x-robolift-csrf"
MAX_BODY_BYTES = 256 << 10
MAX_DRAINED_BYTES = 4 << 20
"""So much of a body that is too large is read and thrown away: a connection closed before would lose the answer."""
BODY_TIMEOUT_S = 30.0
HEALTH = "/healthz"
API = "/api/"
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; object-src 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Guard:
    """ASGI middleware; what passes carries ``annotator`` and, if it changes something, ``session`` in its state."""

    def __init__(self, app: ASGIApp, *, hosts: Collection[str], identity: Identity, sessions: Sessions) -> None:
        """Guard ``app``, which is served under the names ``hosts``."""
        self._app = app
        self._hosts = frozenset(host.lower() for host in hosts)
        self._identity = identity
        self._sessions = sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or say why not."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            raise AssertionError("only HTTP is served")
        guarded = _with_headers(scope["path"], send)
        try:
            self._check(scope)
            if scope["method"] not in ("GET", "HEAD"):
                receive = await _read_body(scope, receive)
        except RefusedError as refused:
            note_refusal(scope, refused)
            await _refuse(guarded, refused)
            return
        await self._app(scope, receive, guarded)

    def _check(self, scope: Scope) -> None:
        if scope["path"] == HEALTH:  # the kubelet asks by the pod's address
            return
        connection = HTTPConnection(scope)
        host = _host(connection.headers)
        if _name(host) not in self._hosts:
            raise RefusedError(403, "the Host header names no host that this server is served under")
        changes = scope["method"] not in ("GET", "HEAD")
        if changes:
            _check_origin(connection.headers, host)
        if not scope["path"].startswith(API):
            return
        state = scope.setdefault("state", {})
        state["annotator"] = self._identity.who(connection)
        if changes:
            token = connection.headers.get(CSRF_HEADER, "")
            state["session"] = self._sessions.session_of(state["annotator"], token)


def note_refusal(scope: Scope, refused: RefusedError) -> None:
    """Write into the log whom the server refused what, and why; never what they showed to be let in."""
    client = scope.get("client") or ("",)
    get_logger("review").warning(
        "refused",
        status=refused.status,
        reason=refused.detail,
        method=scope["method"],
        path=ascii(scope["path"])[1:-1][:200],  # without the query, which may hold a token
        client=client[0],
    )


def _host(headers: Headers) -> str:
    hosts = headers.getlist("host")
    if len(hosts) != 1:
        raise RefusedError(403, f"{len(hosts)} Host headers, expected one")
    return hosts[0].lower()


def _name(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _check_origin(headers: Headers, host: str) -> None:
    """Let only requests of the server's own page change anything."""
    origins, sites = headers.getlist("origin"), headers.getlist("sec-fetch-site")
    if not origins and not sites:
        raise RefusedError(403, "neither Origin nor Sec-Fetch-Site says where the request comes from")
    for origin in origins:
        scheme, _, rest = origin.lower().partition("://")
        if scheme not in ("http", "https") or rest != host:
            raise RefusedError(403, "the request comes from another site's page")
    if any(site != "same-origin" for site in sites):
        raise RefusedError(403, "the request comes from another site's page")


async def _read_body(scope: Scope, receive: Receive) -> Receive:
    """Read the whole body, however it is framed, and return what gives it to the application."""
    too_large = RefusedError(413, f"the body is over {MAX_BODY_BYTES} bytes")
    declared = Headers(scope=scope).get("content-length", "0")
    if not declared.isdecimal() or int(declared) > MAX_DRAINED_BYTES:
        raise too_large
    body, size = bytearray(), 0
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            while True:
                message = await receive()
                size += len(message.get("body", b""))
                if size > MAX_DRAINED_BYTES:
                    raise too_large
                if size <= MAX_BODY_BYTES:
                    body += message.get("body", b"")
                if message["type"] == "http.disconnect" or not message.get("more_body"):
                    break
    except TimeoutError:
        raise RefusedError(408, f"the body did not come within {BODY_TIMEOUT_S:.0f} s") from None
    if size > MAX_BODY_BYTES:
        raise too_large
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": bytes(body), "more_body": False}

    return replay


def _with_headers(path: str, send: Send) -> Send:
    async def guarded(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers.update(HEADERS)
            if "cache-control" not in headers:
                headers["Cache-Control"] = "no-store" if path.startswith(API) else "no-cache"
        await send(message)

    return guarded


async def _refuse(send: Send, refused: RefusedError) -> None:
    body = json.dumps({"detail": refused.detail}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if refused.status in (408, 413):  # what is left of the body is not read
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
