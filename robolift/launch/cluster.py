"""The API server as the launcher sees it: few calls, patient with a server that is restarting, clear when refused."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from robolift.errors import EXIT_TERMINATED, RoboliftError, UsageError
from robolift.launch.spec import Resource
from robolift.logging import get_logger

RUN_ID_VARIABLE, WORKFLOW_VARIABLE, NAMESPACE_VARIABLE = "ROBOLIFT_RUN_ID", "ROBOLIFT_WORKFLOW", "ROBOLIFT_NAMESPACE"
"""Set by the pipeline from the labels of the step's own pod."""
IN_CLUSTER_VARIABLE = "KUBERNETES_SERVICE_HOST"
NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
WORKFLOWS = Resource(group="argoproj.io", version="v1alpha1", plural="workflows")
MAX_PAUSE_S = 60.0
NOT_FOUND, CONFLICT, TOO_MANY = 404, 409, 429
TIMEOUT_S = (10, 90)
"""To connect, and for the next bytes of an answer."""

T = TypeVar("T")


class ClusterUnreachableError(RoboliftError):
    """The API server gave no answer for a long time; the job goes on, and the same step finds it again."""

    exit_code = EXIT_TERMINATED


def in_cluster(environ: Mapping[str, str] = os.environ) -> bool:
    """Tell whether this process runs in a pod."""
    return bool(environ.get(IN_CLUSTER_VARIABLE))


def own_namespace(environ: Mapping[str, str] = os.environ) -> str:
    """Return the namespace of this pod: where its jobs belong.

    Raises:
        UsageError: If nothing says so.
    """
    if namespace := environ.get(NAMESPACE_VARIABLE):
        return namespace
    if NAMESPACE_FILE.exists():
        return NAMESPACE_FILE.read_text(encoding="utf-8").strip()
    raise UsageError(f"no namespace for the job: set {NAMESPACE_VARIABLE}; a compiled pipeline does so by itself")


def connect(environ: Mapping[str, str] = os.environ) -> Any:
    """Return a client of the API server: the pod's own, or that of the kubeconfig outside a cluster.

    Raises:
        UsageError: If there is neither.
    """
    from kubernetes import client, config  # noqa: PLC0415

    configuration = client.Configuration()
    try:
        if in_cluster(environ):
            config.load_incluster_config(client_configuration=configuration)
        else:
            # The library looks at the variable when it is imported; a caller may have set it since.
            config.load_kube_config(environ.get("KUBECONFIG") or None, client_configuration=configuration)
    except (config.ConfigException, OSError) as error:
        raise UsageError(
            f"no way to the Kubernetes API: {error}; run in a pod, or point KUBECONFIG at a kubeconfig file"
        ) from error
    # urllib3 would try thrice without a pause; calls are repeated here.
    configuration.retries = 0
    return client.ApiClient(configuration)


def reason(error: Exception) -> str:
    """Return what the API or the network said, in one line.

    Args:
        error: An ``ApiException``, or what urllib3 raises when nobody answers.
    """
    status = getattr(error, "status", None)
    if status is None:
        return f"no answer: {error}"
    return f"{status} {getattr(error, 'reason', '') or ''}".strip()


def _owners(metadata: Mapping[str, Any]) -> list[str]:
    return [owner["uid"] for owner in metadata.get("ownerReferences") or []]


@dataclass
class Cluster:
    """One namespace of a cluster.

    Attributes:
        api: Client, as :func:`connect` returns it.
        namespace: Where everything happens.
        patience_s: How long a server may fail to answer before a call gives up.
        first_pause_s: Pause after the first failed call; it doubles up to a minute.
    """

    api: Any
    namespace: str
    patience_s: float = 900.0
    first_pause_s: float = 1.0

    def __post_init__(self) -> None:
        from kubernetes import client  # noqa: PLC0415

        self._objects = client.CustomObjectsApi(self.api)
        self._core = client.CoreV1Api(self.api)
        self._log = get_logger("launch")

    def create(self, resource: Resource, body: Mapping[str, Any]) -> dict[str, Any] | None:
        """Create an object and return it, None if there is one of that name.

        Raises:
            UsageError: If the cluster doesn't know such objects, or refuses this one.
        """
        what = f"create {resource.plural}.{resource.group}"

        def call() -> dict[str, Any]:
            return dict(self._objects.create_namespaced_custom_object(**self._place(resource), body=body))

        return self._call(call, what, absent=CONFLICT)

    def get(self, resource: Resource, name: str) -> dict[str, Any] | None:
        """Return an object, None if there is none."""

        def call() -> dict[str, Any]:
            return dict(self._objects.get_namespaced_custom_object(**self._place(resource), name=name))

        return self._call(call, f"get {resource.plural}.{resource.group}", absent=NOT_FOUND)

    def delete(self, resource: Resource, name: str) -> None:
        """Delete an object and what it owns; it disappears when its pods are gone. Nothing happens if there is none."""

        def call() -> Any:
            return self._objects.delete_namespaced_custom_object(
                **self._place(resource), name=name, propagation_policy="Foreground"
            )

        self._call(call, f"delete {resource.plural}.{resource.group}", absent=NOT_FOUND)

    def create_service(self, body: Mapping[str, Any]) -> None:
        """Create a Service, or find that the same owner has it; one of an owner that is gone is replaced.

        Raises:
            ClusterUnreachableError: If another's Service of that name does not go.
        """
        name, owners = body["metadata"]["name"], _owners(body["metadata"])
        deadline = time.monotonic() + self.patience_s
        while True:
            made = self._call(
                lambda: self._core.create_namespaced_service(self.namespace, body), "create services", absent=CONFLICT
            )
            found = made or self._call(
                lambda: self._core.read_namespaced_service(name, self.namespace), "get services", absent=NOT_FOUND
            )
            if made or (found and _owners(self.api.sanitize_for_serialization(found)["metadata"]) == owners):
                return
            # The garbage collector takes it with the job that owned it; a new one must not be taken along.
            if time.monotonic() > deadline:
                raise ClusterUnreachableError(f"service {name} of an earlier job does not disappear; run it again")
            time.sleep(self.first_pause_s)

    def wait_for_change(self, resource: Resource, name: str, version: str, timeout_s: float) -> None:
        """Return when the object has changed since ``version`` or the time is over.

        A watch only tells when to look again. So whatever ends it, an expired version (410) or a lost connection, is no
        error: the caller reads the object, and that call has the patience.
        """
        from kubernetes.client.exceptions import ApiException  # noqa: PLC0415
        from kubernetes.watch import Watch  # noqa: PLC0415
        from urllib3.exceptions import HTTPError  # noqa: PLC0415

        began = time.monotonic()
        try:
            events = Watch().stream(
                self._objects.list_namespaced_custom_object,
                **self._place(resource),
                field_selector=f"metadata.name={name}",
                resource_version=version,
                timeout_seconds=max(1, round(timeout_s)),
                _request_timeout=(TIMEOUT_S[0], timeout_s + TIMEOUT_S[0]),
            )
            for _ in events:
                return
        except (ApiException, HTTPError, OSError, ValueError) as error:
            self._log.debug("watch ended", cause=str(error))
            # Not at once, or a server that refuses every watch would be asked without end.
            time.sleep(max(0.0, min(self.first_pause_s, timeout_s - (time.monotonic() - began))))

    def pods(self, selector: str) -> list[dict[str, Any]]:
        """Return the pods with these labels, as plain documents, the oldest first."""
        found = self._call(lambda: self._core.list_namespaced_pod(self.namespace, label_selector=selector), "list pods")
        pods: list[dict[str, Any]] = self.api.sanitize_for_serialization(found)["items"]
        return sorted(pods, key=lambda pod: (pod["metadata"].get("creationTimestamp") or "", pod["metadata"]["name"]))

    def tail(self, pod: str, container: str, lines: int) -> str:
        """Return the last lines of a container's log, empty if there is none."""
        text = self._call(
            lambda: self._core.read_namespaced_pod_log(pod, self.namespace, container=container, tail_lines=lines),
            "get pods/log",
            absent=NOT_FOUND,
        )
        return text or ""

    def follow(self, pod: str, container: str, since_s: int | None) -> Iterator[str]:
        """Yield the lines of a container's log as they are written, each with its time in front.

        Raises:
            Exception: Whatever ends the connection; the caller opens it again.
        """
        since = {} if since_s is None else {"since_seconds": since_s}
        response = self._core.read_namespaced_pod_log(
            pod,
            self.namespace,
            container=container,
            follow=True,
            timestamps=True,
            _preload_content=False,
            _request_timeout=TIMEOUT_S,
            **since,
        )
        try:
            rest = b""
            for block in response.stream(amt=None, decode_content=False):
                *complete, rest = (rest + block).split(b"\n")
                for line in complete:
                    yield line.decode("utf-8", "replace")
            if rest:
                yield rest.decode("utf-8", "replace")
        finally:
            response.close()
            response.release_conn()

    def events(self, name: str) -> list[str]:
        """Return what the cluster tells about an object, a line each.

        They only explain a failure; an account that may not read them must not hide it.
        """
        try:
            found = self._call(
                lambda: self._core.list_namespaced_event(self.namespace, field_selector=f"involvedObject.name={name}"),
                "list events",
            )
        except UsageError as error:
            return [str(error).splitlines()[0]]
        return [f"{event.type} {event.reason}: {event.message}" for event in found.items] if found else []

    def workflow_owner(self, name: str) -> dict[str, Any] | None:
        """Return the ``ownerReferences`` entry of a run's Workflow, None if it is gone.

        The Workflow and not the step's pod: a pod dies on a retry, and the job must outlive it.
        """
        found = self.get(WORKFLOWS, name)
        if found is None:
            return None
        return {
            "apiVersion": f"{WORKFLOWS.group}/{WORKFLOWS.version}",
            "kind": "Workflow",
            "name": name,
            "uid": found["metadata"]["uid"],
            "controller": False,
            "blockOwnerDeletion": False,
        }

    def is_ending(self, workflow: str) -> bool:
        """Tell whether a run is over, gone or being terminated; KFP terminates one by a deadline of 0 seconds."""
        found = self.get(WORKFLOWS, workflow)
        if found is None:
            return True
        spec, status = found.get("spec") or {}, found.get("status") or {}
        return bool(
            spec.get("activeDeadlineSeconds") == 0
            or spec.get("shutdown")
            or "deletionTimestamp" in found["metadata"]
            or status.get("phase") in ("Succeeded", "Failed", "Error")
        )

    def _place(self, resource: Resource) -> dict[str, str]:
        return {
            "group": resource.group,
            "version": resource.version,
            "plural": resource.plural,
            "namespace": self.namespace,
        }

    def _call(self, call: Callable[[], T], what: str, *, absent: int | None = None) -> T | None:
        """Call the server until it answers; its answer ``absent`` means None.

        Raises:
            UsageError: If it refuses.
            ClusterUnreachableError: If it doesn't answer for long.
        """
        from kubernetes.client.exceptions import ApiException  # noqa: PLC0415
        from urllib3.exceptions import HTTPError  # noqa: PLC0415

        deadline = time.monotonic() + self.patience_s
        pause = self.first_pause_s
        while True:
            try:
                return call()
            except ApiException as error:
                if error.status == absent:
                    return None
                if error.status and error.status < 500 and error.status != TOO_MANY:
                    raise self._refusal(error, what) from error
                cause = f"{error.status} {error.reason}"
            except (HTTPError, OSError) as error:
                cause = str(error)
            if time.monotonic() + pause > deadline:
                raise ClusterUnreachableError(f"the Kubernetes API does not answer ({what}): {cause}; run it again")
            self._log.warning("no answer from the Kubernetes API", call=what, cause=cause, again_in_s=pause)
            time.sleep(pause)
            pause = min(2 * pause, MAX_PAUSE_S)

    def _refusal(self, error: Any, what: str) -> UsageError:
        where = f"in namespace {self.namespace}"
        text = " ".join((error.body or error.reason or "").split())[:1000]
        if error.status in (401, 403):
            mend = "bind the launcher Role of the chart to this step's ServiceAccount (values: launcher.subjects)"
            return UsageError(f"this step's account may not {what} {where}: {text}\n  {mend}")
        if error.status == NOT_FOUND:
            mend = "install its operator, or choose another trainer.backend in the placement file"
            return UsageError(f"could not {what} {where}: the cluster knows no such objects\n  {mend}")
        return UsageError(f"the Kubernetes API refuses to {what} {where}: {error.status} {text}")
