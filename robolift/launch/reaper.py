"""Delete training jobs that no workflow waits for any more: ``python -m robolift.launch.reaper``.

Terminating a run of Kubeflow Pipelines ends its steps at once, and a step that is killed can't clean up. What it
created is labelled with the name of its workflow; a CronJob runs this module to find jobs whose workflow is finished
or gone. It deletes a job only when it is sure: an unanswered question leaves the job for the next time.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from typing import Any

from robolift import logging
from robolift.errors import EXIT_INTERNAL, RoboliftError
from robolift.launch import cluster
from robolift.launch.backends import BACKENDS
from robolift.launch.cluster import connect, reason
from robolift.launch.spec import NAME_LABELS, WORKFLOW_LABEL

MANAGED_BY = "app.kubernetes.io/managed-by"
GRACE_PERIOD_S = 900
KEEP_FINISHED_S = 86_400
PAGE = 200
TIMEOUT_S = 15.0
# Job kinds a launcher can create: API group, version, plural.
KINDS = tuple(astuple(backend.RESOURCE) for backend in BACKENDS.values())
WORKFLOWS = astuple(cluster.WORKFLOWS)
WORKFLOW_ENDS = ("Succeeded", "Failed", "Error")
JOB_ENDS = ("Succeeded", "Complete", "Failed")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one pass did: jobs deleted (or to delete, in a dry run), jobs kept, questions without an answer."""

    deleted: int
    kept: int
    errors: int


@dataclass(frozen=True, kw_only=True)
class Limits:
    """When a job may go.

    Args:
        grace_period_s: A job younger than this is never deleted, whatever its workflow says.
        keep_finished_s: A job that has ended is kept this long after its end, because its pods have the logs.
    """

    grace_period_s: float = GRACE_PERIOD_S
    keep_finished_s: float = KEEP_FINISHED_S


def reap(api: Any, namespace: str, limits: Limits, *, dry_run: bool = False, now: datetime | None = None) -> Outcome:
    """Go through the launcher's jobs of ``namespace`` once.

    Args:
        api: A ``kubernetes.client.CustomObjectsApi``.
        namespace: Where jobs and workflows are.
        limits: What is too young to go.
        dry_run: Delete nothing, log what would go.
        now: The present, for tests.
    """
    log = logging.get_logger("reaper")
    now = now or datetime.now(UTC)
    counts = {"deleted": 0, "kept": 0, "errors": 0}
    ends: dict[str, str | None] = {}
    for kind in KINDS:
        try:
            for job in list(_jobs(api, namespace, kind)):
                counts[_judge(api, namespace, kind, job, ends, limits=limits, now=now, dry_run=dry_run)] += 1
        except Exception as error:
            if not _is_api_error(error):
                raise
            counts["errors"] += 1
            log.error("can't list jobs", kind=kind[2], namespace=namespace, error=reason(error))
    log.info("done", namespace=namespace, dry_run=dry_run, **counts)
    return Outcome(**counts)


def _judge(
    api: Any,
    namespace: str,
    kind: tuple[str, str, str],
    job: dict[str, Any],
    ends: dict[str, str | None],
    *,
    limits: Limits,
    now: datetime,
    dry_run: bool,
) -> str:
    """Delete or keep one job; return the count it belongs to."""
    meta = job["metadata"]
    workflow = meta["labels"][WORKFLOW_LABEL]
    log = logging.get_logger("reaper").bind(kind=kind[2], job=meta["name"], workflow=workflow)
    age_s = (now - _time(meta["creationTimestamp"])).total_seconds()
    if meta.get("deletionTimestamp"):
        return "kept"
    try:
        if workflow not in ends:
            ends[workflow] = _end_of_workflow(api, namespace, workflow)
        why = ends[workflow]
        if why is None or age_s < limits.grace_period_s:
            return "kept"
        finished = _finished_at(job)
        if finished is not None and (now - finished).total_seconds() < limits.keep_finished_s:
            return "kept"
        if dry_run:
            log.info("would delete", why=why, age_s=round(age_s))
        elif _delete(api, namespace, kind, meta):
            log.info("deleted", why=why, age_s=round(age_s))
        else:
            return "kept"
    except Exception as error:
        if not _is_api_error(error):
            raise
        log.error("left for the next time", error=reason(error))
        return "errors"
    return "deleted"


def _jobs(api: Any, namespace: str, kind: tuple[str, str, str]) -> Iterator[dict[str, Any]]:
    """Yield the launcher's jobs of one kind; none where the cluster doesn't know the kind."""
    from kubernetes.client import ApiException  # noqa: PLC0415

    selector = f"{MANAGED_BY}={NAME_LABELS[MANAGED_BY]},{WORKFLOW_LABEL}"
    page = None
    while page != "":
        token: dict[str, str] = {"_continue": page} if page else {}
        try:
            answer = api.list_namespaced_custom_object(
                *kind[:2], namespace, kind[2], label_selector=selector, limit=PAGE, _request_timeout=TIMEOUT_S, **token
            )
        except ApiException as error:
            if error.status == 404:
                return
            raise
        yield from answer["items"]
        page = answer.get("metadata", {}).get("continue") or ""


def _end_of_workflow(api: Any, namespace: str, name: str) -> str | None:
    """Return why nobody waits in workflow ``name`` any more, None while it runs."""
    from kubernetes.client import ApiException  # noqa: PLC0415

    try:
        workflow = api.get_namespaced_custom_object(
            *WORKFLOWS[:2], namespace, WORKFLOWS[2], name, _request_timeout=TIMEOUT_S
        )
    except ApiException as error:
        if error.status == 404 and _names(error.body, name):
            return "its workflow is gone"
        raise
    phase = (workflow.get("status") or {}).get("phase", "")
    return f"its workflow is {phase}" if phase in WORKFLOW_ENDS else None


def _names(body: Any, name: str) -> bool:
    """Tell whether a 404 speaks of the object: one from a server that serves no workflows at all proves nothing."""
    try:
        return bool(json.loads(body)["details"]["name"] == name)
    except (ValueError, KeyError, TypeError):
        return False


def _finished_at(job: dict[str, Any]) -> datetime | None:
    for condition in (job.get("status") or {}).get("conditions") or []:
        if condition["type"] in JOB_ENDS and condition["status"] == "True":
            return _time(condition.get("lastTransitionTime") or job["metadata"]["creationTimestamp"])
    return None


def _delete(api: Any, namespace: str, kind: tuple[str, str, str], meta: dict[str, Any]) -> bool:
    """Delete a job and its pods; False if it is gone already, or another one has its name now."""
    from kubernetes.client import ApiException  # noqa: PLC0415

    body = {
        "apiVersion": "v1",
        "kind": "DeleteOptions",
        "propagationPolicy": "Background",
        "preconditions": {"uid": meta["uid"]},
    }
    try:
        api.delete_namespaced_custom_object(
            *kind[:2], namespace, kind[2], meta["name"], body=body, _request_timeout=TIMEOUT_S
        )
    except ApiException as error:
        if error.status in (404, 409):
            return False
        raise
    return True


def _is_api_error(error: Exception) -> bool:
    from kubernetes.client import ApiException  # noqa: PLC0415
    from urllib3.exceptions import HTTPError  # noqa: PLC0415

    return isinstance(error, (ApiException, HTTPError))


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m robolift.launch.reaper", description="Delete training jobs whose workflow is finished or gone."
    )
    parser.add_argument("--namespace", required=True, help="where jobs and workflows are")
    parser.add_argument(
        "--grace-period", type=float, default=GRACE_PERIOD_S, metavar="S", help="never delete a job younger than this"
    )
    parser.add_argument(
        "--keep-finished", type=float, default=KEEP_FINISHED_S, metavar="S", help="keep an ended job and its logs"
    )
    parser.add_argument("--dry-run", action="store_true", help="log what would be deleted, delete nothing")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one pass and return its exit code: 0, or 70 when a question had no answer."""
    logging.configure()
    args = _parser().parse_args(argv)
    try:
        from kubernetes.client import CustomObjectsApi  # noqa: PLC0415

        limits = Limits(grace_period_s=args.grace_period, keep_finished_s=args.keep_finished)
        outcome = reap(CustomObjectsApi(connect()), args.namespace, limits, dry_run=args.dry_run)
    except RoboliftError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    return EXIT_INTERNAL if outcome.errors else 0


if __name__ == "__main__":
    sys.exit(main())
