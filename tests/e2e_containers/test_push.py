"""Pushing to a real registry: the digest that comes back is the registry's, and what is there is found again."""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from image_engines import Buildah, remote_digest


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of an empty registry of the test's own, without TLS."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = tmp_path / "registry.yml"
    storage = {"filesystem": {"rootdirectory": str(tmp_path / "registry")}}
    config.write_text(yaml.safe_dump({"version": 0.1, "storage": storage, "http": {"addr": f"127.0.0.1:{port}"}}))
    monkeypatch.setenv("REGISTRY_TLS_VERIFY", "false")
    with (tmp_path / "registry.log").open("wb") as log:
        server = subprocess.Popen(["docker-registry", "serve", str(config)], stdout=log, stderr=log)
        try:
            for _ in range(100):
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/", timeout=5).close()
                    break
                except OSError:
                    time.sleep(0.1)
            yield f"127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(timeout=30)


def test_a_pushed_image_is_in_the_registry_under_the_digest_that_the_lock_will_name(registry, references):
    engine = Buildah()
    pushed = f"{registry}/robots/robolift-cpu:{references['cpu'].rpartition(':')[2]}"
    assert remote_digest(pushed) == ""
    engine.tag(references["cpu"], pushed)
    try:
        digest = engine.push(pushed)
    finally:
        subprocess.run(["buildah", "rmi", pushed], check=True, stdout=subprocess.DEVNULL)
    assert digest.startswith("sha256:")
    assert remote_digest(pushed) == digest
    repository = pushed.partition("/")[2].rpartition(":")[0]
    with urllib.request.urlopen(f"http://{registry}/v2/{repository}/tags/list", timeout=10) as answer:
        assert json.load(answer)["tags"] == [pushed.rpartition(":")[2]]
