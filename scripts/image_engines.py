"""The two builders an image can be made with, behind one interface: buildah (no daemon) and docker."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

ROOT = Path(__file__).resolve().parent.parent
CONTAINERS_CONF = ROOT / "scripts" / "containers.conf"
PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")


class EngineError(Exception):
    """No builder is there, or it refused; the message is for the user."""


@dataclass(frozen=True, kw_only=True)
class Build:
    """One image to build: its Dockerfile, its references, its build arguments and pip's settings, if there are any."""

    dockerfile: str
    references: Sequence[str]
    arguments: Mapping[str, str]
    pip_conf: Path | None


def _run(command: Sequence[str], environment: Mapping[str, str] | None = None, *, quiet: bool = False) -> str:
    """Run a builder; its output goes to the terminal, or is returned when ``quiet``.

    Raises:
        EngineError: If it ends with anything but zero.
    """
    pipe = subprocess.PIPE if quiet else None
    full = {**os.environ, **(environment or {})}
    done = subprocess.run(command, env=full, stdout=pipe, stderr=pipe, text=True, check=False)
    if done.returncode:
        raise EngineError(f"{' '.join(command[:3])} ended with {done.returncode}\n{done.stderr or ''}".rstrip())
    return (done.stdout or "").strip()


def _succeeds(command: Sequence[str], environment: Mapping[str, str] | None = None) -> bool:
    try:
        _run(command, environment, quiet=True)
    except EngineError:
        return False
    return True


def _build_flags(build: Build) -> list[str]:
    flags = ["--network", "host", "-f", str(ROOT / build.dockerfile)]
    for reference in build.references:
        flags += ["-t", reference]
    arguments = {**build.arguments, **{key: os.environ[key] for key in PROXY_VARIABLES if os.environ.get(key)}}
    for key, value in arguments.items():
        flags += ["--build-arg", f"{key}={value}"]
    if build.pip_conf:
        flags += ["--secret", f"id=pip_conf,src={build.pip_conf}"]
    return [*flags, str(ROOT)]


class Engine(Protocol):
    """What a builder must be able to do."""

    name: str
    local_prefix: str

    def has(self, reference: str) -> bool:
        """Tell whether the image is in the local storage."""

    def build(self, build: Build) -> None:
        """Build an image; layers of earlier builds are used again."""

    def tag(self, reference: str, other: str) -> None:
        """Give a local image a second name."""

    def push(self, reference: str) -> str:
        """Push an image and return its digest, ``sha256:...``."""


class Buildah:
    """buildah: needs no daemon. Images lie in its own storage, which podman shares."""

    name = "buildah"
    local_prefix = "localhost/"

    def __init__(self) -> None:
        """Use the configuration in scripts/ unless CONTAINERS_CONF names another."""
        self.environment = {"CONTAINERS_CONF": os.environ.get("CONTAINERS_CONF", str(CONTAINERS_CONF))}

    def has(self, reference: str) -> bool:
        """Tell whether the image is in the local storage."""
        return _succeeds(["buildah", "inspect", "--type", "image", reference], self.environment)

    def build(self, build: Build) -> None:
        """Build an image; layers of earlier builds are used again."""
        # The docker format, because that is what every registry and runtime takes.
        _run(["buildah", "build", "-q", "--layers", "--format", "docker", *_build_flags(build)], self.environment)

    def tag(self, reference: str, other: str) -> None:
        """Give a local image a second name."""
        _run(["buildah", "tag", reference, other], self.environment)

    def push(self, reference: str) -> str:
        """Push an image and return its digest, ``sha256:...``."""
        with tempfile.TemporaryDirectory() as folder:
            digest = Path(folder) / "digest"
            command = ["buildah", "push", "-q", f"--tls-verify={_tls_verify()}", "--digestfile", str(digest)]
            _run([*command, reference, f"docker://{reference}"], self.environment)
            return digest.read_text().strip()


class Docker:
    """docker with BuildKit: 23 or newer with its buildx plugin, or 20.10."""

    name = "docker"
    local_prefix = ""
    environment: Mapping[str, str] = {"DOCKER_BUILDKIT": "1"}

    def has(self, reference: str) -> bool:
        """Tell whether the daemon has the image."""
        return _succeeds(["docker", "image", "inspect", reference])

    def build(self, build: Build) -> None:
        """Build an image; layers of earlier builds are used again."""
        _run(["docker", "build", "-q", *_build_flags(build)], self.environment)

    def tag(self, reference: str, other: str) -> None:
        """Give a local image a second name."""
        _run(["docker", "tag", reference, other])

    def push(self, reference: str) -> str:
        """Push an image and return its digest, ``sha256:...``."""
        _run(["docker", "push", "-q", reference])
        found = json.loads(
            _run(["docker", "image", "inspect", "--format", "{{json .RepoDigests}}", reference], quiet=True)
        )
        repository = reference.rpartition(":")[0]
        return str(next(entry for entry in found if entry.startswith(f"{repository}@")).partition("@")[2])


def _tls_verify() -> str:
    return os.environ.get("REGISTRY_TLS_VERIFY", "true")


def remote_digest(reference: str) -> str:
    """Return the digest of an image in its registry, empty if it isn't there or skopeo is not installed."""
    if shutil.which("skopeo") is None:
        return ""
    command = ["skopeo", "inspect", f"--tls-verify={_tls_verify()}", "--format", "{{.Digest}}"]
    try:
        return _run([*command, f"docker://{reference}"], quiet=True)
    except EngineError:
        return ""


def find_engine(wanted: str = "") -> Engine:
    """Return the builder called ``wanted``; without a name docker where it can build, else buildah.

    Raises:
        EngineError: If there is none.
    """
    docker_works = shutil.which("docker") is not None and _succeeds(["docker", "info"])
    if wanted == "docker" or (not wanted and docker_works and _succeeds(["docker", "buildx", "version"])):
        if not docker_works:
            raise EngineError("docker is not installed or its daemon does not answer; start it, or use ENGINE=buildah")
        return Docker()
    if shutil.which("buildah") is None:
        raise EngineError(
            "neither docker with buildx nor buildah is here: install one, such as: apt-get install buildah runc"
        )
    return Buildah()
