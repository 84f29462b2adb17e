"""submit, upload and schedule: bring a checked, compiled pipeline to Kubeflow Pipelines."""

import argparse
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Mapping

from components import _kubeflow, _releases, _schedules, _wait
from components._kubeflow import Kubeflow
from components._kubeflow_errors import ConflictError, UnavailableError


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is to be submitted: compiled and checked."""

    pipeline: str
    package: Path
    spec: Mapping[str, Any]
    parameters: Mapping[str, Any]


def run_name(pipeline: str) -> str:
    """Return a name for a run: pipeline, time in UTC, and four digits, so that two never share one."""
    return f"{pipeline} {time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime())} {uuid.uuid4().hex[:4]}"


def _experiment_id(kubeflow: Kubeflow, name: str) -> str:
    """Return the id of an experiment, made if it isn't there."""

    def get_or_make() -> Any:
        return kubeflow.ask(
            f"opening experiment {name}", kubeflow.client.create_experiment, name, namespace=kubeflow.api_namespace
        )

    try:
        return str(get_or_make().experiment_id)
    except ConflictError:
        # Two submissions made it at once: the second look finds it.
        return str(get_or_make().experiment_id)


def _options(args: argparse.Namespace) -> Dict[str, Any]:
    """Return the client's arguments that are left to the server unless they are given."""
    given = {"service_account": args.service_account, "pipeline_root": args.pipeline_root}
    return {key: value for key, value in given.items() if value}


def _upload(kubeflow: Kubeflow, job: Job) -> _releases.Release:
    release = _releases.upload(kubeflow, job.package, job.spec)
    print(f"version:    {release.name} ({'uploaded' if release.is_new else 'was there'})")
    return release


def submit(job: Job, args: argparse.Namespace) -> int:
    """Start a run, print its page and, if asked, wait for it.

    Returns:
        0 submitted or finished, 1 failed, 3 not finished in time or no longer to be followed, 130 left running by
        Ctrl-C.
    """
    patience = _wait.Patience.read(args.timeout, args.poll)
    kubeflow = _kubeflow.connect(args)
    print(f"server:     {kubeflow.host} (Kubeflow Pipelines {kubeflow.version})")
    source: Dict[str, Any] = {"pipeline_package_path": str(job.package)}
    if args.release:
        release = _upload(kubeflow, job)
        source = {"pipeline_id": release.pipeline_id, "version_id": release.version_id}
    experiment_id = _experiment_id(kubeflow, args.experiment)
    name = args.run or run_name(job.pipeline)
    try:
        made = kubeflow.ask(
            f"submitting run {name!r}",
            kubeflow.client.run_pipeline,
            experiment_id,
            name,
            params=dict(job.parameters),
            repeat=False,
            **source,
            **_options(args),
        )
    except UnavailableError as error:
        page = f"{kubeflow.ui}/#/experiments/details/{experiment_id}"
        error.args = (f"{error}\n  the run may have been started all the same: look for {name!r} at {page}",)
        raise
    print(f"run:        {name} ({made.run_id})")
    print(f"submitted:  {kubeflow.run_url(made.run_id)}", flush=True)
    return _wait.wait(kubeflow, made.run_id, patience, known=True) if args.wait else 0


def upload(job: Job, args: argparse.Namespace) -> int:
    """Upload the pipeline as a version and print its page."""
    kubeflow = _kubeflow.connect(args)
    print(f"page:       {_releases.url(kubeflow, _upload(kubeflow, job))}")
    return 0


def schedule(job: Job, args: argparse.Namespace) -> int:
    """Create a recurring run of the uploaded pipeline and print its page."""
    kubeflow = _kubeflow.connect(args)
    name = args.name or job.pipeline
    older = _schedules.taken(kubeflow, name, replace=args.replace)
    made = _schedules.create(
        kubeflow,
        name=name,
        cron=args.cron,
        experiment_id=_experiment_id(kubeflow, args.experiment),
        parameters=job.parameters,
        release=_upload(kubeflow, job),
        options=_options(args),
        older=older,
    )
    print(f"schedule:   {name} ({args.cron}, UTC)")
    print(f"page:       {kubeflow.ui}/#/recurringrun/details/{made}")
    return 0
