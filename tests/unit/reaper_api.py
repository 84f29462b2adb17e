"""A small Kubernetes API over real HTTP: lists, gets, deletes, discovery and access reviews of stored objects."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml


class FakeApi:
    """What the server holds and what it was asked; tests fill and read it."""

    def __init__(self) -> None:
        self.served = {
            ("argoproj.io", "v1alpha1"): ["workflows"],
            ("kubeflow.org", "v1"): ["pytorchjobs"],
            ("trainer.kubeflow.org", "v1alpha1"): ["trainjobs"],
            ("batch", "v1"): ["jobs"],
        }
        self.objects: dict[tuple[str, str, str], dict[str, Any]] = {}  # (namespace, plural, name)
        self.deleted: list[dict[str, Any]] = []
        self.requests: list[tuple[str, str, str]] = []
        self.denied: set[tuple[str, str]] = set()  # (verb, resource or resource/subresource)
        self.broken: dict[str, int] = {}  # part of a path -> status of every answer to it
        self.url = ""

    def add(self, plural: str, name: str, *, namespace: str = "ns", **fields: Any) -> dict[str, Any]:
        """Store one object; ``labels``, ``created`` and ``uid`` go into its metadata."""
        meta = {
            "name": name,
            "namespace": namespace,
            "uid": fields.pop("uid", f"uid-{name}"),
            "labels": fields.pop("labels", {}),
            "creationTimestamp": fields.pop("created", "2026-01-01T00:00:00Z"),
        }
        self.objects[(namespace, plural, name)] = {"metadata": meta, **fields}
        return self.objects[(namespace, plural, name)]

    def names(self, plural: str) -> list[str]:
        return sorted(name for _, kind, name in self.objects if kind == plural)

    def write_kubeconfig(self, path: Path) -> Path:
        cluster = {"name": "c", "cluster": {"server": self.url}}
        user = {"name": "u", "user": {"token": "secret-token"}}
        context = {"name": "x", "context": {"cluster": "c", "user": "u"}}
        path.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [cluster],
                    "users": [user],
                    "contexts": [context],
                    "current-context": "x",
                }
            )
        )
        return path


@contextmanager
def serve() -> Iterator[FakeApi]:
    """Run the server on a free port for the duration of the block."""
    fake = FakeApi()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"fake": fake}))
    fake.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    fake: FakeApi
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        parts, query = self._read()
        if self._broken():
            return
        if parts == ["apis", "v2beta1", "healthz"]:
            self._send(200, {"multi_user": False})
        elif parts[:1] == ["apis"] and len(parts) == 3:
            plurals = self.fake.served.get((parts[1], parts[2]))
            if plurals is None:
                self._send(404, "404 page not found")
            else:
                self._send(200, {"resources": [{"name": plural} for plural in plurals]})
        elif not self._is_served(parts):
            self._send(404, "404 page not found")
        elif len(parts) == 6:
            self._list(parts, query)
        else:
            found = self.fake.objects.get((parts[4], parts[5], parts[6]))
            if found is None:
                self._send(404, _status(404, "NotFound", parts))
            else:
                self._send(200, found)

    def do_DELETE(self) -> None:
        parts, _ = self._read()
        body = self._body()
        if self._broken():
            return
        key = (parts[4], parts[5], parts[6])
        found = self.fake.objects.get(key)
        wanted = body.get("preconditions", {}).get("uid")
        if found is None:
            self._send(404, _status(404, "NotFound", parts))
        elif wanted not in (None, found["metadata"]["uid"]):
            self._send(409, _status(409, "Conflict", parts))
        else:
            self.fake.deleted.append({"name": parts[6], **body})
            del self.fake.objects[key]
            self._send(200, {"kind": "Status", "status": "Success"})

    def do_POST(self) -> None:
        self._read()
        review = self._body()
        if self._broken():
            return
        ask = review["spec"]["resourceAttributes"]
        resource = "/".join(part for part in (ask["resource"], ask.get("subresource")) if part)
        review["status"] = {"allowed": (ask["verb"], resource) not in self.fake.denied}
        self._send(201, review)

    def _list(self, parts: list[str], query: dict[str, list[str]]) -> None:
        selector = [term.split("=") for term in query.get("labelSelector", [""])[0].split(",") if term]
        items = [
            found
            for (namespace, plural, _), found in sorted(self.fake.objects.items())
            if (namespace, plural) == (parts[4], parts[5])
            and all(term[0] in found["metadata"]["labels"] for term in selector)
            and all(found["metadata"]["labels"][term[0]] == term[1] for term in selector if len(term) == 2)
        ]
        start, limit = int(query.get("continue", ["0"])[0]), int(query.get("limit", ["500"])[0])
        rest = {"continue": str(start + limit)} if start + limit < len(items) else {}
        self._send(200, {"metadata": rest, "items": items[start : start + limit]})

    def _is_served(self, parts: list[str]) -> bool:
        return len(parts) >= 6 and parts[5] in self.fake.served.get((parts[1], parts[2]), [])

    def _broken(self) -> bool:
        for fragment, status in self.fake.broken.items():
            if fragment in self.path:
                self._send(status, {"kind": "Status", "code": status, "message": "broken by the test"})
                return True
        return False

    def _read(self) -> tuple[list[str], dict[str, list[str]]]:
        self.fake.requests.append((self.command, self.path, self.headers.get("Authorization", "")))
        address = urlsplit(self.path)
        return address.path.strip("/").split("/"), parse_qs(address.query)

    def _body(self) -> dict[str, Any]:
        length = int(self.headers.get("Content-Length") or 0)
        return json.loads(self.rfile.read(length)) if length else {}

    def _send(self, status: int, body: Any) -> None:
        content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain" if isinstance(body, str) else "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def _status(code: int, reason: str, parts: list[str]) -> dict[str, Any]:
    return {
        "kind": "Status",
        "status": "Failure",
        "code": code,
        "reason": reason,
        "message": f'{parts[5]}.{parts[1]} "{parts[6]}" not found',
        "details": {"name": parts[6], "group": parts[1], "kind": parts[5]},
    }
