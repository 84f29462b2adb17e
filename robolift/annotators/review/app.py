"""The labelling page's server: HTTP around what a person can do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse
from pydantic import BaseModel, ConfigDict, Field

from robolift.annotators.review.cli import is_loopback
from robolift.annotators.review.desk import (
    MAX_EVENTS,
    Desk,
    NoSuchItemError,
    Person,
    Seen,
    TooManyHeldError,
    UnseenError,
)
from robolift.annotators.review.events import EventError
from robolift.annotators.review.footage import Footage
from robolift.annotators.review.guard import Guard, note_refusal
from robolift.annotators.review.identity import Identity, RefusedError, Sessions
from robolift.annotators.review.lanes import Lanes
from robolift.annotators.review.leases import Lease, StaleLeaseError
from robolift.annotators.review.packs import MAX_FRAMES, Packs
from robolift.annotators.review.pairs import Excerpt
from robolift.annotators.review.progress import Progress
from robolift.data.cores import num_cores
from robolift.errors import RoboliftError
from robolift.logging import get_logger

STATIC = Path(__file__).parent / "static"
INDEX = "index.html"
MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
CLIENT_CLOSED_REQUEST = 499
Mode = Literal["episode", "pair"]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class NextBody(_Body):
    """POST /api/next."""

    mode: Mode
    after: str | None = None


class LeaseBody(_Body):
    """POST /api/lease."""

    item: str
    action: Literal["take", "renew", "release"]
    epoch: int | None = Field(default=None, ge=0)


class EventsBody(_Body):
    """POST /api/events; ``seen``, where it is given, is the last stored event of the item that the page knows."""

    item: str
    epoch: int = Field(ge=0)
    seen: str | None = None
    events: list[dict[str, Any]] = Field(min_length=1, max_length=MAX_EVENTS)


@dataclass(frozen=True, kw_only=True)
class Review:
    """What the server serves.

    Attributes:
        footage: What people see.
        desk: Their work.
        lanes: What models say of episodes; None where clips are shown.
        identity: How people are known.
        hosts: Names that the server is served under.
    """

    footage: Footage
    desk: Desk
    lanes: Lanes | None
    identity: Identity
    hosts: Collection[str]


class Decoders:
    """Threads that decode; requests wait for one in the event loop, where it shows that a browser no longer waits."""

    def __init__(self, count: int) -> None:
        """Make ``count`` threads."""
        self.pool = ThreadPoolExecutor(count, thread_name_prefix="decoder")
        self.free = asyncio.Semaphore(count)


def create_app(review: Review) -> FastAPI:
    """Return the application, guarded."""
    packs, sessions = Packs(review.footage), Sessions(review.desk.labels)
    # Threads of their own: however many frames are waited for, an event is stored at once.
    decoders = Decoders(num_cores())

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        decoders.pool.shutdown(cancel_futures=True)
        packs.close()

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.add_middleware(Guard, hosts=review.hosts, identity=review.identity, sessions=sessions)
    _answer_errors(app)
    _serve_page(app, review)
    _serve_session(app, review, sessions)
    _serve_assignment(app, review)
    _serve_footage(app, review)
    _serve_frames(app, review, packs, decoders)
    if review.lanes is not None:
        _serve_lanes(app, review, review.lanes)
    _serve_work(app, review)
    _serve_overview(app, review)
    return app


def _encodable(text: str) -> str:
    # JSON may escape half a character, which UTF-8 can't write: an answer that quotes it could not be sent.
    return text.encode("utf-8", "backslashreplace").decode()


def _answer_errors(app: FastAPI) -> None:
    @app.exception_handler(StaleLeaseError)
    def stale(_: Request, error: StaleLeaseError) -> JSONResponse:
        return JSONResponse({"detail": "stale lease", "holder": error.holder}, status_code=409)

    @app.exception_handler(TooManyHeldError)
    def too_many(_: Request, error: TooManyHeldError) -> JSONResponse:
        return JSONResponse({"detail": str(error), "holder": None, "held": error.held}, status_code=409)

    @app.exception_handler(UnseenError)
    def unseen(_: Request, error: UnseenError) -> JSONResponse:
        return JSONResponse({"detail": "not what you saw"}, status_code=409)

    @app.exception_handler(EventError)
    def malformed(_: Request, error: EventError) -> JSONResponse:
        return JSONResponse({"detail": _encodable(str(error)), "field": _encodable(error.field)}, status_code=422)

    @app.exception_handler(RequestValidationError)
    def misshapen(_: Request, error: RequestValidationError) -> JSONResponse:
        wrong = [f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()]
        return JSONResponse({"detail": _encodable("; ".join(wrong))}, status_code=422)

    @app.exception_handler(NoSuchItemError)
    def absent(_: Request, error: NoSuchItemError) -> JSONResponse:
        return JSONResponse({"detail": "there is no such item"}, status_code=404)

    @app.exception_handler(RoboliftError)
    def broken(_: Request, error: RoboliftError) -> JSONResponse:
        # Addresses of the store are for the operator, not for everybody with a browser.
        get_logger("review").error("request failed", problem=str(error))
        return JSONResponse({"detail": "the server can't do this; its log says why"}, status_code=500)


def _serve_page(app: FastAPI, review: Review) -> None:
    # All there is to serve is known now; a request only picks from it, so no path of a request reaches the disk.
    files = {
        str(path.relative_to(STATIC)): path.read_bytes() for path in STATIC.rglob("*") if path.suffix in MEDIA_TYPES
    }

    def give(name: str) -> Response:
        if name not in files:
            raise HTTPException(404, "there is no such file")
        return Response(files[name], media_type=MEDIA_TYPES[Path(name).suffix])

    @app.get("/healthz")
    def healthz() -> dict[str, bool]:
        return {"ok": True}

    @app.get("/")
    def index(request: Request, token: str | None = None, name: str | None = None) -> Response:
        if token is None:
            return give(INDEX)
        try:
            held = review.identity.sign_in(token, name)
        except RefusedError as refused:
            note_refusal(request.scope, refused)
            page = give(INDEX)  # which says what to do: its address still has the token
            page.status_code = refused.status
            return page
        # Nowhere in the address is the token any more: not in the history, nor in what is copied from there.
        response = RedirectResponse("/", status_code=303)
        if held is not None:
            # Whatever ends TLS before this server: the browser knows whether it came over TLS.
            secure = not is_loopback(request.url.hostname or "")
            response.set_cookie(*held, httponly=True, samesite="strict", secure=secure)
        return response

    @app.get("/static/{name:path}")
    def static(name: str) -> Response:
        return give(name)


def _annotator(request: Request) -> str:
    return str(request.state.annotator)


def _person(request: Request) -> Person:
    return Person(annotator=request.state.annotator, session=request.state.session)


def _serve_session(app: FastAPI, review: Review, sessions: Sessions) -> None:
    job, footage = review.desk.job, review.footage

    @app.get("/api/session")
    def session(request: Request) -> dict[str, Any]:
        opened, csrf = sessions.open(_annotator(request))
        return {
            "annotator": _annotator(request),
            "session": opened,
            "csrf": csrf,
            "job": job.model_dump(include={"ask", "num_task_stages", "blind", "lease_s", "overlap"}),
            "dataset": {
                "fps": footage.fps,
                "cameras": list(footage.cameras),
                "tasks": list(footage.tasks),
                "num_episodes": len(review.desk.items["episode"]),
                "version": footage.version,
            },
            "lanes": review.lanes.present if review.lanes else {},
            "modes": [mode for mode, items in review.desk.items.items() if items],
        }


def _granted(review: Review, lease: Lease) -> dict[str, Any]:
    return {"epoch": lease.epoch, "expires_in_s": review.desk.leases.expires_in_s(lease)}


def _serve_assignment(app: FastAPI, review: Review) -> None:
    desk = review.desk

    @app.post("/api/next")
    def next_item(request: Request, body: NextBody) -> dict[str, Any]:
        lease, reason = desk.next(_person(request), body.mode, after=body.after)
        if lease is None:
            return {"item": None, "reason": reason}
        return {"item": lease.item, "lease": _granted(review, lease)}

    @app.post("/api/lease")
    def lease(request: Request, body: LeaseBody) -> dict[str, Any]:
        desk.check_item(body.item)
        who = vars(_person(request))
        if body.action == "take":
            return _granted(review, desk.take(_person(request), body.item))
        if body.epoch is None:
            raise HTTPException(422, f"{body.action} needs the epoch of the lease")
        if body.action == "renew":
            return _granted(review, desk.leases.renew(body.item, body.epoch, **who))
        desk.leases.release(body.item, body.epoch, **who)
        return {"epoch": body.epoch, "expires_in_s": 0}


def _length(footage: Footage, number: int) -> int:
    if not 0 <= number < len(footage.lengths):
        raise NoSuchItemError(number)
    return footage.lengths[number]


def _is_hidden(request: Request, review: Review, item: str) -> bool:
    return review.desk.job.blind and not review.desk.completed(_annotator(request), item)


def _serve_footage(app: FastAPI, review: Review) -> None:
    footage = review.footage
    sizes = {camera: list(footage.image_size(camera)) for camera in footage.cameras}

    @app.get(f"/api/{footage.noun}s/{{number}}")
    def facts(request: Request, number: int) -> dict[str, Any]:
        length, item = _length(footage, number), f"{footage.noun}:{number}"
        hidden = review.lanes is not None and _is_hidden(request, review, item)  # of clips nothing is told
        about = footage.about(number) | ({"outcome": None} if hidden else {})
        return {"item": item, "length": length, "fps": footage.fps, "cameras": sizes, "blind": hidden, **about}


def _serve_frames(app: FastAPI, review: Review, packs: Packs, decoders: Decoders) -> None:
    footage = review.footage

    @app.get(f"/api/{footage.noun}s/{{number}}/frames/{{camera:path}}")
    async def frames(
        request: Request, number: int, camera: str, start: int = 0, stop: int | None = None, v: str = ""
    ) -> Response:
        length = _length(footage, number)
        if camera not in footage.cameras:
            raise HTTPException(404, "there is no such camera")
        end = min(length, start + 64) if stop is None else min(stop, length)
        if not 0 <= start < end or end - start > MAX_FRAMES:
            raise HTTPException(422, f"expected frames in 0..{length}, at most {MAX_FRAMES}")
        # An address without the footage's version may mean other frames tomorrow: the browser must ask again.
        lasting = "private, max-age=31536000, immutable" if v == footage.version else "private, no-cache"
        tag = f'"{footage.version}-{number}-{footage.cameras.index(camera)}-{start}-{end}"'
        headers = {"ETag": tag, "Cache-Control": lasting}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        async with decoders.free:
            if await request.is_disconnected():  # went on to other frames meanwhile
                return Response(status_code=CLIENT_CLOSED_REQUEST)
            loop = asyncio.get_running_loop()
            body = await loop.run_in_executor(decoders.pool, packs.frames, number, camera, start, end)
        return Response(body, media_type="application/octet-stream", headers=headers)


def _serve_lanes(app: FastAPI, review: Review, lanes: Lanes) -> None:
    @app.get("/api/episodes/{episode}/lanes")
    def lanes_of(request: Request, episode: int) -> dict[str, Any]:
        _length(review.footage, episode)
        return lanes.of(episode, hidden=_is_hidden(request, review, f"episode:{episode}"))


def _place(review: Review, excerpt: Excerpt) -> dict[str, Any]:
    return {review.footage.noun: excerpt.number, "start": excerpt.start, "stop": excerpt.stop}


def _serve_work(app: FastAPI, review: Review) -> None:
    desk = review.desk

    @app.get("/api/episodes/{episode}/mine")
    def my_episode(request: Request, episode: int) -> dict[str, Any]:
        return desk.mine(_annotator(request), f"episode:{episode}")

    @app.get("/api/pairs/{pair_id}/mine")
    def my_pair(request: Request, pair_id: str) -> dict[str, Any]:
        return desk.mine(_annotator(request), f"pair:{pair_id}")

    @app.get("/api/episodes/{episode}/others")
    def others(request: Request, episode: int) -> dict[str, Any]:
        item = f"episode:{episode}"
        if not desk.completed(_annotator(request), item):
            raise HTTPException(403, "what others said is shown after you completed the item")
        return {"annotators": desk.others(_annotator(request), item)}

    @app.get("/api/pairs/{pair_id}")
    def pair(request: Request, pair_id: str) -> dict[str, Any]:
        desk.check_item(f"pair:{pair_id}")
        shown = [_place(review, excerpt) for excerpt in (desk.pairs[pair_id].a, desk.pairs[pair_id].b)]
        flipped = desk.is_flipped(pair_id, _annotator(request))
        first, second = reversed(shown) if flipped else shown
        return {"item": f"pair:{pair_id}", "a": first, "b": second, "flipped": flipped}

    @app.post("/api/events")
    def submit(request: Request, body: EventsBody) -> dict[str, Any]:
        seen = Seen(body.seen) if "seen" in body.model_fields_set else None
        return {"stored": desk.submit(_person(request), body.item, body.epoch, body.events, seen=seen)}


def _serve_overview(app: FastAPI, review: Review) -> None:
    progress, footage = Progress(review.desk), review.footage
    facts: dict[str, dict[str, Any]] = {
        f"episode:{number}": {"length": footage.lengths[number], "task": footage.about(number)["task"]}
        for number in range(len(review.desk.items["episode"]))
    }
    for pair in review.desk.pairs.values():
        longer = max(pair.a.stop - pair.a.start, pair.b.stop - pair.b.start)
        facts[f"pair:{pair.pair_id}"] = {"length": longer, "task": footage.about(pair.a.number)["task"]}

    @app.get("/api/items")
    def items(request: Request, mode: Mode = "episode") -> list[dict[str, Any]]:
        return progress.items(mode, _annotator(request), facts)

    @app.get("/api/progress")
    def report(request: Request) -> dict[str, Any]:
        return progress.report(_annotator(request))

    @app.get("/api/disagreements")
    def disagreements() -> list[dict[str, Any]]:
        return progress.disagreements()
