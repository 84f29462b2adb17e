"""A Docker daemon of the tests' own: its images, containers and networks end with it and touch no other daemon."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import docker

START_S = 60
SBIN = "/usr/sbin:/sbin"


class Daemon:
    """A running daemon.

    Attributes:
        address: What DOCKER_HOST is set to.
        client: The SDK's client of it.
    """

    def __init__(self) -> None:
        # Short: the path of a socket may have 107 characters.
        self.folder = Path(tempfile.mkdtemp(prefix="rl-docker-", dir="/var/tmp"))
        self.address = f"unix://{self.folder}/docker.sock"
        self.log = self.folder / "dockerd.log"
        command = ["dockerd", "--host", self.address, "--pidfile", f"{self.folder}/pid"]
        command += ["--data-root", f"{self.folder}/data", "--exec-root", f"{self.folder}/exec"]
        # No bridge of its own and no firewall rules: nothing of it stays behind. Containers need no way out.
        command += ["--bridge", "none", "--iptables=false", "--ip-forward=false", "--storage-driver", "overlay2"]
        with self.log.open("wb") as log:
            environment = {**os.environ, "PATH": f"{os.environ['PATH']}:{SBIN}"}
            self._process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True
            )
        self.client = self._connect()

    def _connect(self) -> docker.DockerClient:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self._process.poll() is None:
            with socket.socket(socket.AF_UNIX) as probe:
                if probe.connect_ex(self.address.removeprefix("unix://")) == 0:
                    return docker.DockerClient(base_url=self.address, timeout=600)
            time.sleep(0.5)
        text = self.log.read_text()[-3000:]
        self.stop()
        raise RuntimeError(f"dockerd did not start:\n{text}")

    def take(self, reference: str, name: str) -> None:
        """Copy an image from buildah's storage; the daemon knows it as ``name``."""
        archive = self.folder / "image.tar"
        subprocess.run(["buildah", "push", "-q", reference, f"docker-archive:{archive}:{name}"], check=True)
        with archive.open("rb") as stream:
            self.client.images.load(stream)
        archive.unlink()

    def stop(self) -> None:
        """Stop every container and the daemon, and delete all that it kept."""
        if hasattr(self, "client"):
            for container in self.client.containers.list(all=True):
                container.remove(force=True)
            for network in self.client.networks.list():
                if network.attrs["Driver"] == "bridge":
                    network.remove()
            self.client.close()
        self._process.terminate()
        self._process.wait(timeout=60)
        for left in (self.folder / "exec" / "netns").glob("*"):  # the host's own, which containers on it were given
            subprocess.run(["umount", left], check=False, stderr=subprocess.DEVNULL)
        shutil.rmtree(self.folder, ignore_errors=True)
