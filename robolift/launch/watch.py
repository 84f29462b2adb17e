"""From a :class:`JobSpec` to a finished job: create it or take over an earlier attempt's, follow it, clean up.

A launcher may be killed at any moment and start again: the job's name is the same, so it is found, and the digest of
what it was asked for tells that it is ours. The job lives on meanwhile.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from robolift.errors import EXIT_DATA, EXIT_INTERNAL, EXIT_TERMINATED, EXIT_USAGE, RoboliftError, UsageError
from robolift.launch.backends import Backend, find
from robolift.launch.cluster import Cluster
from robolift.launch.logs import Follower, tell_failures
from robolift.launch.spec import DIGEST_ANNOTATION, WORKFLOW_LABEL, JobSpec, State, Status
from robolift.logging import get_logger


class JobFailedError(RoboliftError):
    """A job failed; the exit code is that of its pods where they ended by a user's error."""

    def __init__(self, text: str, exit_code: int = EXIT_INTERNAL) -> None:
        super().__init__(text)
        self.exit_code = exit_code


class JobLostError(RoboliftError):
    """A job disappeared or took too long; the same step makes it anew, and training goes on from its last state."""

    exit_code = EXIT_TERMINATED


@dataclass(frozen=True)
class Patience:
    """How long things may take, in seconds.

    Attributes:
        watch: One watch of a job; it is read anew after each.
        deletion: Until a deleted job and its pods are gone.
        slack: Beyond the job's own deadline, before it is deleted.
        log: Until the rest of a finished pod's log has arrived.
        log_pause: Between two attempts to read a log.
    """

    watch: float = 60.0
    deletion: float = 300.0
    slack: float = 600.0
    log: float = 15.0
    log_pause: float = 5.0


def _write(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def run_job(
    cluster: Cluster, spec: JobSpec, *, patience: Patience | None = None, say: Callable[[str], None] = _write
) -> None:
    """Run a job to its end.

    Args:
        cluster: Where.
        spec: What.
        patience: How long things may take.
        say: Takes the lines of the first pod's log.

    Raises:
        UsageError: If another job has its name, or the cluster refuses it.
        JobFailedError: If it failed.
        JobLostError: If it was deleted by someone, or ran past its deadline and was deleted here.
        SystemExit: On SIGTERM. The job is deleted where its run is being terminated; where the step's pod alone is
            moved, the job goes on and the next attempt of the step finds it.
    """
    waiting = patience or Patience()
    backend = find(spec.launch.backend)
    manifest = backend.build(spec)
    log = get_logger("launch").bind(job=spec.name, backend=spec.launch.backend, nodes=spec.nodes)
    follower = Follower(
        cluster,
        backend.main_selector(spec.name),
        backend.CONTAINER,
        lambda line: say(f"[{spec.name}] {line}"),
        waiting.log_pause,
    )
    ours: dict[str, Any] | None = None
    with _ended_by_sigterm():
        try:
            ours = _create_or_adopt(cluster, backend, spec, manifest, waiting, say)
            _create_companions(cluster, backend, spec, ours)
            follower.start()
            status = _wait(cluster, backend, spec, waiting, log)
        except (KeyboardInterrupt, SystemExit, TimeoutError) as error:
            if ours is not None and not (isinstance(error, SystemExit) and _goes_on(cluster, spec)):
                log.warning("deleting the job", cause=type(error).__name__)
                cluster.delete(backend.RESOURCE, spec.name)
            if isinstance(error, TimeoutError):
                raise JobLostError(f"job {spec.name} {error}; it was deleted") from None
            raise
        finally:
            follower.stop()
    follower.finish(waiting.log)
    if status.state == State.FAILED:
        raise _failure(cluster, backend, spec, status, say)
    log.info("job succeeded")


def _goes_on(cluster: Cluster, spec: JobSpec) -> bool:
    """Tell whether the run that a job belongs to goes on without this process; the reaper looks after its jobs."""
    workflow = spec.labels.get(WORKFLOW_LABEL)
    try:
        return bool(workflow) and not cluster.is_ending(str(workflow))
    except RoboliftError:
        return True  # better a job too many for a while than a night's training lost


def _create_or_adopt(
    cluster: Cluster,
    backend: Backend,
    spec: JobSpec,
    manifest: dict[str, Any],
    waiting: Patience,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Create the job, or take over the one that an earlier attempt of this step left; return it.

    Raises:
        JobFailedError: If the earlier one ended by a user's error, which another attempt would only meet again.
    """
    log = get_logger("launch").bind(job=spec.name)
    deadline = time.monotonic() + waiting.deletion
    while True:
        created = cluster.create(backend.RESOURCE, manifest)
        if created is not None:
            log.info("job created", resource=backend.RESOURCE.plural, namespace=cluster.namespace)
            return created
        found = cluster.get(backend.RESOURCE, spec.name)
        if found is None:
            continue  # it went in between
        _check_ours(found, manifest, backend)
        if "deletionTimestamp" not in found["metadata"]:
            status = backend.state(found)
            if status.state != State.FAILED:
                log.info("job adopted", state=str(status.state))
                return found
            failure = _failure(cluster, backend, spec, status, say)
            if failure.exit_code in (EXIT_USAGE, EXIT_DATA):
                raise failure
            log.info("job of an earlier attempt failed; making it anew")
            cluster.delete(backend.RESOURCE, spec.name)
        if time.monotonic() > deadline:
            raise JobLostError(f"job {spec.name} of an earlier attempt does not disappear after {waiting.deletion:g} s")
        cluster.wait_for_change(
            backend.RESOURCE, spec.name, found["metadata"]["resourceVersion"], min(5.0, waiting.watch)
        )


def _check_ours(found: dict[str, Any], manifest: dict[str, Any], backend: Backend) -> None:
    metadata = found["metadata"]
    theirs = (metadata.get("annotations") or {}).get(DIGEST_ANNOTATION, "none")
    ours = manifest["metadata"]["annotations"][DIGEST_ANNOTATION]
    if theirs != ours:
        where = f"{backend.RESOURCE.plural} {metadata['name']} in namespace {manifest['metadata']['namespace']}"
        raise UsageError(
            f"there is another job of this name: {where}\n  its spec digest is {theirs}, expected {ours}\n"
            f"  it was asked for something else; wait for its end, or: "
            f"kubectl -n {manifest['metadata']['namespace']} delete {backend.RESOURCE.plural} {metadata['name']}"
        )


def _create_companions(cluster: Cluster, backend: Backend, spec: JobSpec, created: dict[str, Any]) -> None:
    owner = {
        "apiVersion": created["apiVersion"],
        "kind": created["kind"],
        "name": spec.name,
        "uid": created["metadata"]["uid"],
    }
    for companion in backend.companions(spec):
        metadata = {**companion["metadata"], "ownerReferences": [owner]}
        cluster.create_service({**companion, "metadata": metadata})


def _wait(cluster: Cluster, backend: Backend, spec: JobSpec, waiting: Patience, log: Any) -> Status:
    """Return the final state; time in a queue does not count.

    Raises:
        JobLostError: If the job is gone.
        TimeoutError: If it takes longer than its deadline and some slack.
    """
    limit = spec.launch.active_deadline_s + waiting.slack
    spent, before = 0.0, time.monotonic()
    shown: Status | None = None
    while True:
        found = cluster.get(backend.RESOURCE, spec.name)
        if found is None:
            raise JobLostError(f"job {spec.name} was deleted by someone; run again to go on from its last state")
        status = backend.state(found)
        if status != shown:
            log.info("job state", state=str(status.state), message=status.message)
            shown = status
        if status.state in (State.SUCCEEDED, State.FAILED):
            return status
        now = time.monotonic()
        spent += 0.0 if status.state == State.SUSPENDED else now - before
        before = now
        if spent > limit:
            raise TimeoutError(f"took longer than {limit:g} s")
        cluster.wait_for_change(backend.RESOURCE, spec.name, found["metadata"]["resourceVersion"], waiting.watch)


def _failure(
    cluster: Cluster, backend: Backend, spec: JobSpec, status: Status, say: Callable[[str], None]
) -> JobFailedError:
    try:
        failures = tell_failures(cluster, backend.pods_selector(spec.name), backend.CONTAINER, say)
    except UsageError as error:  # no right to read pods: that is not what went wrong
        say(str(error))
        failures = []
    for event in cluster.events(spec.name):
        say(f"--- event of {spec.name}: {event}")
    codes = {failure.exit_code for failure in failures}
    code = next((code for code in (EXIT_USAGE, EXIT_DATA) if code in codes), EXIT_INTERNAL)
    lines = [f"job {spec.name} failed: {status.message or 'no reason given'}"]
    for failure in failures:
        lines.append(f"pod {failure.name}: exit code {failure.exit_code} {failure.reason} {failure.error}".rstrip())
    return JobFailedError("\n  ".join(lines), code)


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end the block by an exception, so that the job is deleted: a run that was cancelled sends it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: Any) -> None:
        raise SystemExit(EXIT_TERMINATED)

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
