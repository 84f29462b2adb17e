"""Counts what stages ask of an object store: a local server that speaks S3, and a counter before it."""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from benchmarks.cost_runs import Run, run

OPERATIONS = ("GET", "HEAD", "LIST", "PUT", "DELETE")
READ_BYTES = "read_bytes"
BUCKET = "costs"


class Counting:
    """A web application that counts what passes through it: requests as S3 would bill them, and bytes that are read.

    Attributes:
        seen: Requests by operation, and READ_BYTES.
    """

    def __init__(self, application: Callable[..., Iterable[bytes]]) -> None:
        self._application = application
        self._lock = threading.Lock()
        self.seen: Counter[str] = Counter()

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        """Count one request and pass it on."""
        name = operation(environ["REQUEST_METHOD"], environ["PATH_INFO"], environ.get("QUERY_STRING", ""))

        def started(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            length = next((int(value) for key, value in headers if key.lower() == "content-length"), 0)
            with self._lock:
                self.seen[name] += 1
                self.seen[READ_BYTES] += length if name == "GET" else 0
            return start(status, headers, *more)

        return self._application(environ, started)


def operation(method: str, path: str, query: str) -> str:
    """Return the name of a request: reading a bucket's list is LIST, its parts and copies are PUT."""
    if method == "GET" and ("list-type" in parse_qs(query) or path.strip("/").count("/") == 0):
        return "LIST"
    if method == "POST":  # the start and the end of an upload in parts, or a deletion of many
        return "DELETE" if "delete" in parse_qs(query, keep_blank_values=True) else "PUT"
    return method


@contextmanager
def server() -> Iterator[Counting]:
    """Serve an empty bucket on this machine, reachable through the environment."""
    from moto.server import DomainDispatcherApplication, create_backend_app  # noqa: PLC0415
    from werkzeug.serving import make_server  # noqa: PLC0415

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    counting = Counting(DomainDispatcherApplication(create_backend_app))
    serving = make_server("127.0.0.1", 0, counting, threaded=True)
    thread = threading.Thread(target=serving.serve_forever, daemon=True)
    thread.start()
    told = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{serving.server_port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    os.environ.update(told)
    try:
        import fsspec  # noqa: PLC0415

        fsspec.filesystem("s3").mkdir(BUCKET)
        yield counting
    finally:
        serving.shutdown()
        thread.join()


def counting_runner(counting: Counting) -> Callable[..., Run]:
    """Return a runner of stages that counts what each asks of the store."""

    def runner(stage: str, folder: Path, *, root: str, inputs: Mapping[str, Any], config: Mapping[str, Any]) -> Run:
        counting.seen.clear()
        done = run(stage, folder, root=root, inputs=inputs, config=config)
        return replace(done, requests={name: float(counting.seen[name]) for name in (*OPERATIONS, READ_BYTES)})

    return runner
