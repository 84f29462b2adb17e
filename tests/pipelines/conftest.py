"""Fixtures of the submission tests: a server, a compiled pipeline, and the command line in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from kfp_server import KfpServer

ROOT = Path(__file__).parents[2]
IMAGE = f"registry.example/robolift-cpu@sha256:{'a' * 64}"
# The environment of whoever runs the tests must not decide where they connect, or as whom.
NAMES = ("KFP_HOST", "KFP_NAMESPACE", "KF_PIPELINES_ENDPOINT", "KF_PIPELINES_UI_ENDPOINT", "KUBERNETES_SERVICE_HOST")
NAMES += ("SSL_CERT_FILE", "KF_PIPELINES_SA_TOKEN_PATH", "GOOGLE_APPLICATION_CREDENTIALS")


@dataclass
class Done:
    """What a command gave."""

    code: int
    out: str
    err: str


@pytest.fixture
def kfp(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[KfpServer]:
    """A server for one user that accepts anybody; its ``state`` says otherwise."""
    from kfp.client import Client

    from components import _kubeflow

    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(Client, "_LOCAL_KFP_CONTEXT", str(tmp_path / "context.json"))
    monkeypatch.setattr(_kubeflow, "RETRY_WAITS_S", (0.01, 0.01, 0.01))
    with KfpServer() as server:
        yield server


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """recap's golden file with its parameters and its first step alone: the whole takes the client a second to read."""
    documents = list(yaml.load_all((ROOT / "tests/golden/recap.yaml").read_text(), Loader=yaml.CSafeLoader))
    spec = documents[0]
    label = next(name for name in spec["components"] if name.startswith("comp-plan-shards"))
    executor = spec["components"][label]["executorLabel"]
    spec["components"] = {label: spec["components"][label]}
    container = {**spec["deploymentSpec"]["executors"][executor]["container"], "image": IMAGE}
    spec["deploymentSpec"]["executors"] = {executor: {"container": container}}
    task = {"componentRef": {"name": label}, "taskInfo": {"name": "plan-shards"}}
    spec["root"]["dag"] = {"tasks": {"plan-shards": task}}
    path = tmp_path_factory.mktemp("package") / "recap.yaml"
    path.write_text(yaml.dump(spec, Dumper=yaml.CSafeDumper))
    return path


@pytest.fixture
def command(
    kfp: KfpServer, package: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Done]:
    """Run a command of pipeline.py in this process against ``kfp``, on the compiled pipeline."""
    from components import _cli

    def compiled(pipeline: object, path: Path) -> dict[str, object]:
        path.write_bytes(package.read_bytes())
        return dict(next(yaml.load_all(path.read_text(), Loader=yaml.CSafeLoader)))

    # Compiling takes seconds and is tested by itself; everything after it is the real thing.
    monkeypatch.setattr(_cli, "compile_to", compiled)

    def run(*arguments: str, host: str | None = None) -> Done:
        host = kfp.url if host is None else host
        code = _cli.main({"recap": None}, [*arguments, *(["--host", host] if host else [])])
        captured = capsys.readouterr()
        return Done(code, captured.out, captured.err)

    return run


@pytest.fixture
def submit(command: Callable[..., Done]) -> Callable[..., Done]:
    """Submit recap with its one required parameter."""

    def run(*arguments: str, **options: str) -> Done:
        return command("submit", "recap", "--set", "output_root=s3://bucket/runs", *arguments, **options)

    return run
