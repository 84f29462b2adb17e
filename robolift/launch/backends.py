"""The kinds of job that can carry a stage, by the name under which the placement file chooses one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from robolift.errors import UsageError
from robolift.launch import job, pytorchjob, trainjob
from robolift.launch.spec import PROCESS, JobSpec, Resource, Status


class Backend(Protocol):
    """A module of this package, as a type checker sees it."""

    @property
    def RESOURCE(self) -> Resource:  # noqa: N802
        """Where the API server keeps its objects."""

    @property
    def CONTAINER(self) -> str:  # noqa: N802
        """Name of the container that trains."""

    def build(self, spec: JobSpec) -> dict[str, Any]:
        """Return the manifest of a job."""

    def companions(self, spec: JobSpec) -> list[dict[str, Any]]:
        """Return the manifests of the Services that a job needs."""

    def state(self, document: Mapping[str, Any]) -> Status:
        """Return where a job is."""

    def pods_selector(self, name: str) -> str:
        """Return the label selector of a job's pods."""

    def main_selector(self, name: str) -> str:
        """Return the label selector of a job's first pod."""


BACKENDS: Mapping[str, Backend] = {"pytorchjob": pytorchjob, "trainjob": trainjob, "job": job}


def find(name: str) -> Backend:
    """Return the backend called ``name``.

    Raises:
        UsageError: If there is none.
    """
    if name not in BACKENDS:
        raise UsageError(f"no backend {name!r}; there are: {', '.join([*BACKENDS, PROCESS])}")
    return BACKENDS[name]
