"""A small Kubernetes API server over real HTTP: objects, watches, pods with logs, and the ways in which one misbehaves.

It holds any object by resource and name, counts resource versions, answers watches from them, and lets a test play the
controller: ``on_create`` is called in a thread of its own for each object that is made.
"""

from __future__ import annotations

import contextlib
import copy
import json
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

STREAM_TICK_S = 0.02


class FakeKubernetes:
    """The server's state; everything that touches it holds ``changed``."""

    def __init__(self) -> None:
        self.changed = threading.Condition(threading.RLock())
        self.objects: dict[tuple[str, str], dict] = {}
        self.history: list[tuple[int, str, dict]] = []
        self.watched: dict[str, str] = {}
        self.version = 100
        self.oldest = 0
        self.deletion_s = 0.0
        self.logs: dict[str, list[tuple[str, str]]] = {}
        self.closed_logs: set[str] = set()
        self.drop_log_after: int | None = None
        self.faults: list[dict] = []
        self.requests: list[tuple[str, str, dict]] = []
        self.bodies: list[dict] = []
        self.on_create: Callable[[FakeKubernetes, dict], None] = lambda *_: None
        self.host = ""

    # What a test does

    def fail(self, status: int, *, times: int = 1, method: str = "", path: str = "", watch: bool | None = None) -> None:
        """Answer the next ``times`` matching requests with ``status``."""
        self.faults.append({"status": status, "times": times, "method": method, "path": path, "watch": watch})

    def find(self, plural: str) -> dict:
        """Return the only object of a resource."""
        with self.changed:
            (found,) = [copy.deepcopy(o) for (kind, _), o in self.objects.items() if kind == plural]
        return found

    def names(self, plural: str) -> list[str]:
        with self.changed:
            return [name for kind, name in self.objects if kind == plural]

    def count(self, method: str, plural: str) -> int:
        """Return how often a resource was asked for by ``method``."""
        return sum(m == method and f"/{plural}" in path for m, path, _ in list(self.requests))

    def await_watch(self, plural: str, name: str) -> None:
        """Wait until somebody has read an object as it is now and waits for its next change, or it is gone."""

        def seen() -> bool:
            found = self.objects.get((plural, name))
            return found is None or self.watched.get(name) == found["metadata"]["resourceVersion"]

        with self.changed:
            self.changed.wait_for(seen, timeout=60)

    def put(self, plural: str, name: str, document: dict) -> None:
        """Add or change an object."""
        with self.changed:
            known = self.objects.get((plural, name))
            self.version += 1
            metadata = {
                "name": name,
                "uid": str(uuid.uuid4()),
                "creationTimestamp": f"2026-01-01T00:00:{self.version % 60:02d}Z",
                **(known or {}).get("metadata", {}),
                **document.get("metadata", {}),
                "resourceVersion": str(self.version),
            }
            document = {**(known or {}), **document, "metadata": metadata}
            self.objects[plural, name] = document
            self.history.append((self.version, "MODIFIED" if known else "ADDED", copy.deepcopy(document)))
            self.changed.notify_all()

    def set_conditions(self, plural: str, name: str, *kinds: str, message: str = "") -> None:
        """Let the named conditions hold, and no other."""
        conditions = [{"type": kind, "status": "True", "message": message} for kind in kinds]
        with self.changed:
            if (plural, name) in self.objects:  # a controller may be late
                self.put(plural, name, {"status": {"conditions": conditions}})

    def add_pod(self, name: str, labels: dict, container: str, state: dict, phase: str = "Running") -> None:
        """Add or change a pod with one container."""
        statuses = [{"name": container, "state": state, "ready": True, "restartCount": 0, "image": "i", "imageID": "i"}]
        status = {"phase": phase, "containerStatuses": statuses}
        self.put("pods", name, {"metadata": {"labels": labels}, "status": status})

    def log(self, pod: str, *lines: str) -> None:
        """Add lines to a pod's log, stamped as a kubelet does."""
        with self.changed:
            known = self.logs.setdefault(pod, [])
            for line in lines:
                seconds, rest = divmod(time.time_ns(), 10**9)
                known.append((time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest:09d}Z", line))
            self.changed.notify_all()

    def close_log(self, pod: str) -> None:
        """End a pod's log: its container has ended."""
        with self.changed:
            self.closed_logs.add(pod)
            self.changed.notify_all()

    def remove(self, plural: str, name: str) -> None:
        """Delete an object at once."""
        with self.changed:
            gone = self.objects.pop((plural, name), None)
            if gone is not None:
                self.version += 1
                self.history.append((self.version, "DELETED", gone))
                self.changed.notify_all()

    def expire_watches(self) -> None:
        """Forget all history: a watch from an older version is refused with 410."""
        with self.changed:
            self.oldest = self.version + 1
            self.version += 1

    @contextmanager
    def serving(self):
        """Serve on a free port of this machine for the length of the block."""
        fake = self

        class Handler(_Handler):
            kubernetes = fake

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        self.host = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    kubernetes: FakeKubernetes
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def handle(self):
        with contextlib.suppress(ConnectionError):  # the client went away, as killed ones do
            super().handle()

    def do_GET(self):
        self._serve(self._get)

    def do_POST(self):
        self._serve(self._post)

    def do_DELETE(self):
        self._serve(self._delete)

    def _serve(self, method):
        fake = self.kubernetes
        parts = urlsplit(self.path)
        self.query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        length = int(self.headers.get("Content-Length") or 0)
        self.body = json.loads(self.rfile.read(length)) if length else None
        fake.requests.append((self.command, parts.path, self.query))
        if self.body is not None:
            fake.bodies.append(self.body)
        for fault in fake.faults:
            matches = fault["method"] in ("", self.command) and fault["path"] in parts.path
            if matches and fault["times"] > 0 and fault["watch"] in (None, "watch" in self.query):
                fault["times"] -= 1
                self._status(fault["status"], "fault")
                return
        words = parts.path.strip("/").split("/")
        place = words[words.index("namespaces") + 2 :]
        method(*place)

    def _json(self, code, document):
        content = json.dumps(document).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _status(self, code, reason):
        self._json(code, {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": reason})

    def _get(self, plural, name=None, part=None):
        fake = self.kubernetes
        if part == "log":
            self._log(name)
        elif "watch" in self.query:
            self._watch()
        elif name is not None:
            with fake.changed:
                found = copy.deepcopy(fake.objects.get((plural, name)))
            self._json(200, found) if found else self._status(404, "NotFound")
        else:
            with fake.changed:
                found = [copy.deepcopy(o) for (kind, _), o in fake.objects.items() if kind == plural]
            self._json(200, {"kind": "List", "metadata": {}, "items": [o for o in found if self._selected(o)]})

    def _selected(self, document):
        labels = document["metadata"].get("labels", {})
        wanted = dict(pair.split("=") for pair in self.query.get("labelSelector", "").split(",") if pair)
        field, _, value = self.query.get("fieldSelector", "").partition("=")
        found = document
        for step in field.split(".") if field else ():
            found = found.get(step, {})
        return all(labels.get(key) == text for key, text in wanted.items()) and (not field or found == value)

    def _post(self, plural):
        fake = self.kubernetes
        name = self.body["metadata"]["name"]
        if name in fake.names(plural):
            self._status(409, "AlreadyExists")
            return
        fake.put(plural, name, self.body)
        made = copy.deepcopy(fake.objects[plural, name])
        threading.Thread(target=fake.on_create, args=(fake, made), daemon=True).start()
        self._json(201, made)

    def _delete(self, plural, name):
        fake = self.kubernetes
        if name not in fake.names(plural):
            self._status(404, "NotFound")
            return
        fake.put(plural, name, {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}})
        later = threading.Timer(fake.deletion_s, fake.remove, (plural, name))
        later.daemon = True
        later.start()
        self._json(200, {"kind": "Status", "status": "Success"})

    def _stream(self):
        """Begin an answer in chunks, as a real server streams."""
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def _chunk(self, content):
        self.wfile.write(f"{len(content):x}\r\n".encode() + content + b"\r\n")
        self.wfile.flush()

    def _watch(self):
        fake = self.kubernetes
        since = int(self.query.get("resourceVersion") or 0)
        deadline = time.monotonic() + float(self.query.get("timeoutSeconds", 60))
        self._stream()
        if since < fake.oldest:
            expired = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
            self._line({"type": "ERROR", "object": expired})
            self._chunk(b"")
            return
        wanted = self.query.get("fieldSelector", "").removeprefix("metadata.name=")
        with fake.changed:
            fake.watched[wanted] = str(since)
            fake.changed.notify_all()
        while time.monotonic() < deadline:
            with fake.changed:
                news = [
                    (kind, o)
                    for version, kind, o in fake.history
                    if version > since and o["metadata"]["name"] == wanted
                ]
                if not news:
                    fake.changed.wait(STREAM_TICK_S)
                    continue
            for kind, document in news:
                self._line({"type": kind, "object": document})
                since = int(document["metadata"]["resourceVersion"])
        self._chunk(b"")

    def _line(self, document):
        self._chunk(json.dumps(document).encode() + b"\n")

    def _log(self, pod):
        fake = self.kubernetes
        if (pod not in fake.names("pods")) or pod not in fake.logs:
            self._status(404, "NotFound")
            return
        if "follow" not in self.query:
            lines = [text for _, text in fake.logs[pod]][-int(self.query.get("tailLines", 10**9)) :]
            content = "".join(f"{line}\n" for line in lines).encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            return
        self._stream()
        sent = 0
        while True:
            with fake.changed:
                lines = fake.logs[pod][sent:]
                closed = pod in fake.closed_logs
                if not lines and not closed:
                    fake.changed.wait(STREAM_TICK_S)
                    continue
            for stamp, text in lines:
                self._chunk(f"{stamp} {text}\n".encode())
                sent += 1
                if fake.drop_log_after is not None and sent >= fake.drop_log_after:
                    fake.drop_log_after = None
                    self.close_connection = True  # in the middle of an answer
                    return
            if closed and not lines:
                self._chunk(b"")
                return
