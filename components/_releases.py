"""Pipeline versions on the server: named after the commit and the compiled content, uploaded once."""

import hashlib
import re
import subprocess
from pathlib import Path
from typing import Any, Mapping, NamedTuple

from components._kubeflow import Kubeflow, equals
from components._kubeflow_errors import ConflictError
from robolift.errors import UsageError

REPOSITORY = Path(__file__).parent.parent
DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")


class Release(NamedTuple):
    """A version that the server holds."""

    name: str
    pipeline_id: str
    version_id: str
    is_new: bool


def require_digests(spec: Mapping[str, Any]) -> None:
    """Refuse a pipeline with an image that is named by a tag: a tag can be moved while a run goes on.

    Raises:
        UsageError: Naming the images.
    """
    executors = spec["deploymentSpec"]["executors"].values()
    moving = sorted({e["container"]["image"] for e in executors if "container" in e})
    moving = [image for image in moving if not DIGEST.search(image)]
    if moving:
        raise UsageError(
            f"images without a digest: {', '.join(moving)}\n"
            "  expected: REPOSITORY@sha256:..., from images.lock.json, written when images are built and pushed\n"
            "  mend: make images; or --allow-tags to run whatever the tags point at"
        )


def commit(repository: Path) -> str:
    """Return the first 12 digits of the commit, with ``-dirty`` if the files differ from it, or ``unknown``."""

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(repository), *arguments], capture_output=True, text=True, check=False, timeout=60
        )
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        sha = git("rev-parse", "--short=12", "HEAD")
        dirty = bool(sha) and bool(git("status", "--porcelain", "--untracked-files=no"))
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return "unknown"
    return f"{sha}{'-dirty' if dirty else ''}" if sha else "unknown"


def version_name(package: Path, repository: Path = REPOSITORY) -> str:
    """Return the version's name: the commit, and eight digits of the compiled file's digest.

    The digest is there because images and placement change the compiled file without a commit.
    """
    return f"{commit(repository)}-{hashlib.sha256(package.read_bytes()).hexdigest()[:8]}"


def _pipeline_id(kubeflow: Kubeflow, name: str, description: str) -> str:
    """Return the id of the server's pipeline of this name, made without a version if it isn't there."""
    client = kubeflow.client

    def find() -> str:
        listed = kubeflow.ask(
            "looking for the pipeline", client.list_pipelines, filter=equals(name), namespace=kubeflow.api_namespace
        )
        return str(listed.pipelines[0].pipeline_id) if listed.pipelines else ""

    if found := find():
        return found
    wanted = client.api_models.V2beta1Pipeline(
        display_name=name, name=name, description=description, namespace=kubeflow.api_namespace
    )
    try:
        made = kubeflow.ask(f"making pipeline {name}", client.pipelines.pipeline_service_create_pipeline, wanted)
        return str(made.pipeline_id)
    except ConflictError:
        # Somebody made it between our look and our request.
        if found := find():
            return found
        raise


def upload(kubeflow: Kubeflow, package: Path, spec: Mapping[str, Any]) -> Release:
    """Upload a compiled pipeline as a version, unless the server has this very version.

    Args:
        kubeflow: Connection.
        package: Compiled pipeline.
        spec: What is in it.

    Raises:
        UsageError: If the server refuses it.
    """
    client, facts = kubeflow.client, spec["pipelineInfo"]
    pipeline_id = _pipeline_id(kubeflow, facts["name"], facts.get("description", ""))
    name = version_name(package)

    def find() -> str:
        listed = kubeflow.ask(
            "looking for the version", client.list_pipeline_versions, pipeline_id, filter=equals(name)
        )
        return str(listed.pipeline_versions[0].pipeline_version_id) if listed.pipeline_versions else ""

    if found := find():
        return Release(name, pipeline_id, found, is_new=False)
    try:
        made = kubeflow.ask(
            f"uploading version {name}",
            client.upload_pipeline_version,
            str(package),
            pipeline_version_name=name,
            pipeline_id=pipeline_id,
            description=f"commit {commit(REPOSITORY)}",
        )
        return Release(name, pipeline_id, str(made.pipeline_version_id), is_new=True)
    except ConflictError:
        if found := find():
            return Release(name, pipeline_id, found, is_new=False)
        raise


def url(kubeflow: Kubeflow, release: Release) -> str:
    """Return the page of a version."""
    return f"{kubeflow.ui}/#/pipelines/details/{release.pipeline_id}/version/{release.version_id}"
