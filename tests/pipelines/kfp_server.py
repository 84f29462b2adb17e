"""A server that speaks the v2beta1 REST API of Kubeflow Pipelines to the real client, over HTTP.

It keeps experiments, pipelines, versions, runs and recurring runs; refuses what the real one refuses (a field that the
published models don't have, a name twice, a namespace missing or not yours); and records every request it got.
"""

from __future__ import annotations

import datetime
import email.policy
import json
import re
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml
from argo_workflow import Workflow
from kfp_models import problems

API = "/apis/v2beta1"


@dataclass
class Request:
    """One request as it came in."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


@dataclass
class Fault:
    """An answer to give instead of the real one, ``times`` times."""

    method: str
    pattern: str
    status: int
    body: str
    times: int = 1
    content_type: str = "application/json"
    after: bool = False
    """Whether the work is done before the answer is spoilt."""


class RefusedError(Exception):
    """An error answer with its HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class State:
    """What the server holds and how it behaves."""

    base: str = ""
    multi_user: bool = False
    version: str = "2.17.0"
    api: str = API
    tokens: frozenset[str] = frozenset()
    """Accepted bearer tokens; empty accepts anything."""
    namespaces: frozenset[str] = frozenset({"team"})
    login: bool = False
    """Whether a request without a good token is sent to a login page, as by oauth2-proxy."""
    logs_at: str = "api"
    """Who hands out logs: api, ui or nobody."""
    progress: list[str] = field(default_factory=lambda: ["SUCCEEDED"])
    """States that a run goes through, one a poll; the last one stays."""
    finishes: dict[str, Any] = field(default_factory=dict)
    """What a run's account says besides, once it has reached the last state."""
    workflows: list[Workflow] = field(default_factory=list)
    """The workflow at each poll, as ``progress``: its nodes are the run's tasks."""
    v1beta1: bool = True
    """Whether the workflow itself is handed out, by the older API."""
    faults: list[Fault] = field(default_factory=list)
    logs: dict[str, str] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    experiments: dict[str, dict[str, Any]] = field(default_factory=dict)
    pipelines: dict[str, dict[str, Any]] = field(default_factory=dict)
    versions: dict[str, dict[str, Any]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    recurring: dict[str, dict[str, Any]] = field(default_factory=dict)
    polls: dict[str, int] = field(default_factory=dict)
    terminated: list[str] = field(default_factory=list)

    def sent(self, method: str, suffix: str = "") -> list[Request]:
        """Return the requests with this method whose path ends like this."""
        return [r for r in self.requests if r.method == method and r.path.endswith(suffix)]


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat().replace("+00:00", "Z")


class Handler(BaseHTTPRequestHandler):
    """Routes a request to the state of its server."""

    protocol_version = "HTTP/1.1"
    server: KfpServer

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._handle("GET")

    def do_POST(self) -> None:
        self._handle("POST")

    def do_DELETE(self) -> None:
        self._handle("DELETE")

    def _answer(self, status: int, body: str, content_type: str = "application/json", **headers: str) -> None:
        data = body.encode()
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(data)))
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(data)

    def _read(self) -> Any:
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        kind = self.headers.get("Content-Type", "")
        if kind.startswith("multipart/form-data"):
            head = f"Content-Type: {kind}\r\n\r\n".encode()
            message = BytesParser(policy=email.policy.HTTP).parsebytes(head + data)
            return {
                part.get_param("name", header="content-disposition"): part.get_payload(decode=True)
                for part in message.iter_parts()
            }
        return json.loads(data) if data else None

    def _handle(self, method: str) -> None:
        state = self.server.state
        parts = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        with self.server.lock:
            request = Request(method, parts.path, query, {k.lower(): v for k, v in self.headers.items()}, self._read())
            state.requests.append(request)
            fault = next(
                (f for f in state.faults if f.times and f.method == method and re.search(f.pattern, parts.path)), None
            )
            if fault:
                fault.times -= 1
                if fault.after:
                    self._work(request)
                self._answer(fault.status, fault.body, fault.content_type)
                return
            try:
                body, kind = self._work(request)
            except RefusedError as refused:
                message = str(refused)
                self._answer(refused.status, json.dumps({"error": message, "code": refused.status, "message": message}))
                return
            if kind == "redirect":
                self._answer(302, "", Location=body)
            else:
                self._answer(200, body, kind)

    def _work(self, request: Request) -> tuple[str, str]:
        state = self.server.state
        if request.path.startswith("/dex/"):
            return "<!DOCTYPE html><html><body>Log in to Your Account</body></html>", "text/html"
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if state.tokens and token not in state.tokens:
            if state.login:
                return "/dex/auth?state=1", "redirect"
            raise RefusedError(401, "User identity is empty in the request header")
        if not request.path.startswith(state.base + "/"):
            return "<html><body>Kubeflow Central Dashboard</body></html>", "text/html"
        path = request.path.removeprefix(state.base)
        if path == "/k8s/pod/logs" and state.logs_at == "ui":
            return self._log(request.query["podname"])
        if (found := re.fullmatch(r"/apis/v1alpha1/runs/[^/]+/nodes/([^/]+)/log", path)) and state.logs_at == "api":
            return self._log(found[1], api=True)
        if (found := re.fullmatch(r"/apis/v1beta1/runs/([^/:]+)", path)) and state.workflows and state.v1beta1:
            seen = max(0, state.polls.get(found[1], 0) - 1)
            return json.dumps(
                state.workflows[min(seen, len(state.workflows) - 1)].v1beta1(found[1])
            ), "application/json"
        if not path.startswith(state.api):
            raise RefusedError(404, "Not Found")
        answer = Routes(state, request, path.removeprefix(state.api)).answer()
        return json.dumps(answer), "application/json"

    def _log(self, pod: str, *, api: bool = False) -> tuple[str, str]:
        if pod not in self.server.state.logs:
            if api:  # 2.17.0 writes its 200 before it looks for the pod
                why = f"Failed to read logs from pod {pod}"
                return json.dumps({"error_message": why, "error_details": why}, separators=(",", ":")), "text/plain"
            raise RefusedError(500, f"Failed to read logs from pod {pod}")
        return self.server.state.logs[pod], "text/plain"


class Routes:
    """The API's methods on the state."""

    def __init__(self, state: State, request: Request, path: str) -> None:
        self.state, self.request, self.path = state, request, path
        self.query, self.body = request.query, request.body

    def answer(self) -> Any:
        method = self.request.method
        table: list[tuple[str, str, Callable[..., Any]]] = [
            ("GET", "/healthz", self._health),
            ("GET", "/experiments", lambda: self._list("experiments", self.state.experiments)),
            ("POST", "/experiments", self._make_experiment),
            ("GET", "/pipelines", lambda: self._list("pipelines", self.state.pipelines)),
            ("POST", "/pipelines", self._make_pipeline),
            ("GET", "/pipelines/([^/]+)/versions", self._versions),
            ("POST", "/pipelines/upload_version", self._upload_version),
            ("POST", "/runs", self._make_run),
            ("GET", "/runs/([^/:]+)", self._get_run),
            ("POST", "/runs/([^/:]+):terminate", self._terminate),
            ("GET", "/recurringruns", lambda: self._list("recurringRuns", self.state.recurring)),
            ("POST", "/recurringruns", self._make_recurring),
            ("DELETE", "/recurringruns/([^/:]+)", self._delete_recurring),
        ]
        for verb, pattern, function in table:
            if verb == method and (found := re.fullmatch(pattern, self.path)):
                return function(*found.groups())
        raise RefusedError(404, "Not Found")

    def _health(self) -> Any:
        s = self.state
        return {"commit_sha": "0" * 40, "tag_name": s.version, "multi_user": s.multi_user, "pipeline_store": "database"}

    def _check(self, model: str) -> None:
        if found := problems(self.body, model):
            raise RefusedError(400, f"proto: {found}")

    def _allow(self, namespace: str | None) -> None:
        if not self.state.multi_user:
            if namespace:
                raise RefusedError(400, "In single-user mode, namespace cannot be given")
            return
        if not namespace:
            raise RefusedError(400, "An experiment cannot have an empty namespace in multi-user mode")
        if namespace not in self.state.namespaces:
            raise RefusedError(403, f"User 'dana@example.com' is not authorized in namespace {namespace}")

    def _list(self, key: str, things: dict[str, dict[str, Any]]) -> Any:
        self._allow(self.query.get("namespace"))
        return self._page(
            key, [t for t in things.values() if t.get("namespace", "") == self.query.get("namespace", "")]
        )

    def _page(self, key: str, things: list[dict[str, Any]]) -> Any:
        if "filter" in self.query:
            (predicate,) = json.loads(self.query["filter"])["predicates"]
            assert predicate["operation"] == 1
            things = [t for t in things if t[predicate["key"]] == predicate["stringValue"]]
        size, start = int(self.query.get("page_size") or 10), int(self.query.get("page_token") or 0)
        answer: dict[str, Any] = {"total_size": len(things)}
        if things[start : start + size]:
            answer[key] = things[start : start + size]
        if start + size < len(things):
            answer["next_page_token"] = str(start + size)
        return answer

    def _make_experiment(self) -> Any:
        self._check("V2beta1Experiment")
        self._allow(self.body.get("namespace"))
        if any(e["display_name"] == self.body["display_name"] for e in self.state.experiments.values()):
            raise RefusedError(409, f"Already exist error: experiment {self.body['display_name']}")
        made = {**self.body, "experiment_id": str(uuid.uuid4()), "created_at": now()}
        self.state.experiments[made["experiment_id"]] = made
        return made

    def _make_pipeline(self) -> Any:
        self._check("V2beta1Pipeline")
        self._allow(self.body.get("namespace"))
        if any(p["display_name"] == self.body["display_name"] for p in self.state.pipelines.values()):
            raise RefusedError(409, f"Already exist error: pipeline {self.body['display_name']}")
        made = {**self.body, "pipeline_id": str(uuid.uuid4()), "created_at": now()}
        self.state.pipelines[made["pipeline_id"]] = made
        return made

    def _versions(self, pipeline_id: str) -> Any:
        return self._page(
            "pipeline_versions", [v for v in self.state.versions.values() if v["pipeline_id"] == pipeline_id]
        )

    def _upload_version(self) -> Any:
        if self.query.get("pipelineid") not in self.state.pipelines:
            raise RefusedError(400, "Failed to create a pipeline version")
        if any(v["name"] == self.query["name"] for v in self.state.versions.values()):
            raise RefusedError(409, "Failed to create a pipeline version")
        content = self.body["uploadfile"]
        spec = next(yaml.load_all(content, Loader=yaml.CSafeLoader))
        if "pipelineInfo" not in spec:
            raise RefusedError(400, "Failed to read a pipeline spec file")
        made = {
            "pipeline_id": self.query["pipelineid"],
            "pipeline_version_id": str(uuid.uuid4()),
            "display_name": self.query["name"],
            "name": self.query["name"],
            "description": self.query.get("description", ""),
            "created_at": now(),
        }
        self.state.versions[made["pipeline_version_id"]] = made
        self.state.files[made["pipeline_version_id"]] = content
        return made

    def _source(self) -> None:
        reference = self.body.get("pipeline_version_reference")
        if bool(reference) == bool(self.body.get("pipeline_spec")):
            raise RefusedError(400, "Either a pipeline spec or a pipeline version is required")
        if reference and reference["pipeline_version_id"] not in self.state.versions:
            raise RefusedError(404, f"PipelineVersion {reference['pipeline_version_id']} not found")
        if self.body["experiment_id"] not in self.state.experiments:
            raise RefusedError(404, f"Experiment {self.body['experiment_id']} not found")

    def _make_run(self) -> Any:
        self._check("V2beta1Run")
        self._source()
        made = {**self.body, "run_id": str(uuid.uuid4()), "created_at": now(), "state": "PENDING"}
        self.state.runs[made["run_id"]] = made
        return made

    def _get_run(self, run_id: str) -> Any:
        if run_id not in self.state.runs:
            raise RefusedError(404, f"Run {run_id} not found")
        step = self.state.polls.get(run_id, 0)
        self.state.polls[run_id] = step + 1
        last = len(self.state.progress) - 1
        ended = run_id in self.state.terminated
        account = {**self.state.runs[run_id], "state": "CANCELED" if ended else self.state.progress[min(step, last)]}
        if self.state.workflows:
            details = self.state.workflows[min(step, len(self.state.workflows) - 1)].tasks()
            account["run_details"] = {"task_details": [{"run_id": run_id, **task} for task in details]}
        return {**account, **(self.state.finishes if step >= last else {})}

    def _terminate(self, run_id: str) -> Any:
        if run_id not in self.state.runs:
            raise RefusedError(404, f"Run {run_id} not found")
        self.state.terminated.append(run_id)
        return {}

    def _make_recurring(self) -> Any:
        self._check("V2beta1RecurringRun")
        self._source()
        namespace = self.state.experiments[self.body["experiment_id"]].get("namespace", "")
        made = {**self.body, "recurring_run_id": str(uuid.uuid4()), "status": "ENABLED", "namespace": namespace}
        made["max_concurrency"] = str(made["max_concurrency"])
        self.state.recurring[made["recurring_run_id"]] = made
        return made

    def _delete_recurring(self, recurring_run_id: str) -> Any:
        if self.state.recurring.pop(recurring_run_id, None) is None:
            raise RefusedError(404, f"RecurringRun {recurring_run_id} not found")
        return {}


class KfpServer(ThreadingHTTPServer):
    """The server on a free port of this machine, in a thread of its own."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.state = State()
        self.lock = threading.Lock()
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05})

    @property
    def origin(self) -> str:
        """Return scheme, host and port."""
        scheme = "https" if hasattr(self.socket, "context") else "http"
        return f"{scheme}://127.0.0.1:{self.server_port}"

    @property
    def url(self) -> str:
        """Return the API's address, as a user gives it."""
        return self.origin + self.state.base

    def __enter__(self) -> KfpServer:
        self.thread.start()
        return self

    def __exit__(self, *args: Any) -> None:
        self.shutdown()
        self.thread.join()
        self.server_close()
