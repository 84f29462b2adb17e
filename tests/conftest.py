"""Fixtures for every test: a synthetic recording, the dataset imported from it, an output root, an S3 server."""

from __future__ import annotations

import logging
import os
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from robolift import storage
from robolift.manifest import Manifest

# The same examples in every run, however slow the machine: a run fails by what was changed, not by what was drawn.
hypothesis.settings.load_profile("ci")
# The suite shares two cores: one thread a process is faster and gives the same numbers everywhere.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Tests compile much and compute little: what XLA compiles need not be fast.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")


@pytest.fixture(scope="session")
def recording_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A LeRobot v3.0 dataset of eight short episodes with two 32x32 cameras; read only."""
    import synthetic

    path = tmp_path_factory.mktemp("recording") / "square"
    synthetic.write_recording(path)
    return storage.normalize(str(path))


@pytest.fixture(scope="session")
def dataset(recording_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """The manifest of ``import_dataset`` on :func:`recording_uri`; read only."""
    from robolift.stages.stage import execute

    root = tmp_path_factory.mktemp("imported")
    return execute("import_dataset", {"dataset_uri": recording_uri}, {}, str(root))


@pytest.fixture
def output_root(tmp_path: Path) -> str:
    """An empty place to publish in."""
    return str(tmp_path / "runs")


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """A local server that speaks S3, reachable by child processes through the environment."""
    from moto.s3.responses import S3Response
    from moto.server import ThreadedMotoServer

    writing, put = threading.Lock(), S3Response._key_response_put

    def put_alone(*arguments):
        with writing:  # S3 decides about a conditional write at once; the server looks first, and writes later
            return put(*arguments)

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", endpoint)
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setattr(S3Response, "_key_response_put", put_alone)
        yield endpoint
    server.stop()


@pytest.fixture
def s3(s3_endpoint: str) -> Iterator[str]:
    """The address of an empty bucket of its own."""
    import fsspec

    # An instance made before the server was there keeps asking the real S3.
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    name = f"bucket-{uuid.uuid4().hex}"
    fsspec.filesystem("s3").mkdir(name)
    yield f"s3://{name}"
    fsspec.get_filesystem_class("s3").clear_instance_cache()


@pytest.fixture(scope="session")
def tokenizer_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a small tokenizer with as many pieces as the policy preset ``dummy`` has rows; read only."""
    from tiny_tokenizer import tiny_tokenizer

    path = tmp_path_factory.mktemp("tokenizer") / "tiny.model"
    path.write_bytes(tiny_tokenizer())
    return storage.normalize(str(path))


@pytest.fixture(scope="session")
def tiny_vlm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny vision-language model with heads; read only."""
    from tiny_vlm import write_tiny_vlm

    return write_tiny_vlm(tmp_path_factory.mktemp("vlm") / "tiny")
