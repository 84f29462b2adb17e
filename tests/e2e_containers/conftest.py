"""The images, built from nothing if need be, in a daemon of the tests' own; an S3 server that containers reach."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from container_images import LOCAL_BASE, NAMES, ROOT, image_name, s3_environment
from docker_daemon import Daemon

LEFT_SOCKET = "Exception ignored in. <socket"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything here: it takes root and half an hour, and is no part of the suite."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.containers)
            item.add_marker(pytest.mark.timeout(2400))
            # Docker's SDK leaves the sockets of streamed answers to the garbage collector.
            item.add_marker(pytest.mark.filterwarnings(f"ignore:{LEFT_SOCKET}:pytest.PytestUnraisableExceptionWarning"))


@pytest.fixture(scope="session")
def references() -> dict[str, str]:
    """Each image's reference in buildah's storage; built where it isn't there yet."""
    base = os.environ.get("BASE_IMAGE", "")
    os.environ.setdefault("CONTAINERS_CONF", str(ROOT / "scripts" / "containers.conf"))
    if not base:
        subprocess.run(["bash", "scripts/base_image.sh", LOCAL_BASE], cwd=ROOT, check=True)
    arguments = ["--engine", "buildah", "--accelerator", "cpu", "--base-image", base or LOCAL_BASE]
    command = [sys.executable, "scripts/build_images.py", *NAMES, *arguments]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    lines = [line.split() for line in done.stdout.splitlines()]
    made = [words[0] if words[0].startswith("localhost/") else words[1] for words in lines if len(words) > 1]
    return {name: next(reference for reference in made if f"robolift-{name}:" in reference) for name in NAMES}


@pytest.fixture(scope="session")
def daemon(references: dict[str, str]) -> Iterator[Daemon]:
    """A Docker daemon that has the images."""
    running = Daemon()
    try:
        for name, reference in references.items():
            running.take(reference, image_name(name))
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="session")
def s3_port() -> Iterator[int]:
    """The port of an S3 server that answers on every address of this machine."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="0.0.0.0", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    yield port
    server.stop()


@pytest.fixture
def s3_bucket(s3_port: int, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of an empty bucket, which this process reaches too."""
    import fsspec

    for name, value in s3_environment(s3_port).items():
        monkeypatch.setenv(name, value)
    cls = fsspec.get_filesystem_class("s3")
    cls.clear_instance_cache()
    bucket = "".join(c if c.isalnum() else "-" for c in request.node.name.lower())[:50].strip("-")
    fsspec.filesystem("s3").mkdir(bucket)
    yield f"s3://{bucket}"
    cls.clear_instance_cache()
