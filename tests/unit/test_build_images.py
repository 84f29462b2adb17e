"""What `make images` refuses before it builds anything, and what it asks of the builder that it finds."""

import subprocess
import sys
from pathlib import Path

import image_engines
import pytest
from image_engines import Build, EngineError

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gpu"], "no image gpu; there are: cpu, torch, jax, review"),
        (["--accelerator", "rocm"], "accelerator is 'rocm', expected one of cpu, cuda"),
        (["--engine", "kaniko"], "engine is 'kaniko', expected buildah or docker"),
        (["--push"], "where should the images be pushed to? Give REGISTRY"),
        (["cpu", "--push", "--registry", "registry.example.org/robots"], "names all images together"),
    ],
)
def test_a_wrong_argument_is_refused_with_64_before_any_work(arguments, message):
    command = [sys.executable, "scripts/build_images.py", *arguments]
    done = subprocess.run(command, cwd=ROOT, env={"PATH": ""}, capture_output=True, text=True, check=False)
    assert done.returncode == 64
    assert message in done.stderr
    assert done.stdout == ""


def test_without_a_builder_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineError, match="neither docker with buildx nor buildah is here"):
        image_engines.find_engine()
    with pytest.raises(EngineError, match="daemon does not answer"):
        image_engines.find_engine("docker")


@pytest.fixture
def recorder(tmp_path, monkeypatch):
    """A folder first on the PATH whose programs write down how they were called."""
    script = '#!/bin/sh\necho "$(basename "$0")" "$@" >>"$CALLS"\n[ "$1" != info ] || exit ${INFO_CODE:-0}\n'
    for name in ("docker", "buildah"):
        program = tmp_path / name
        program.write_text(script)
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    for name in image_engines.PROXY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "calls"


def test_docker_is_chosen_where_its_daemon_answers_and_buildah_where_it_does_not(recorder, monkeypatch):
    assert image_engines.find_engine().name == "docker"
    monkeypatch.setenv("INFO_CODE", "1")
    assert image_engines.find_engine().name == "buildah"
    monkeypatch.setenv("INFO_CODE", "0")
    assert image_engines.find_engine("buildah").name == "buildah"


@pytest.mark.parametrize(
    ("name", "first"), [("docker", "docker build -q"), ("buildah", "buildah build -q --layers --format docker")]
)
def test_both_builders_get_the_same_build(recorder, monkeypatch, name, first, tmp_path):
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example.org:3128")
    build = Build(
        dockerfile="images/cpu/Dockerfile",
        references=["robolift-cpu:1"],
        arguments={"BASE_IMAGE": "base:1"},
        pip_conf=tmp_path / "pip.conf",
    )
    image_engines.find_engine(name).build(build)
    assert recorder.read_text().splitlines()[-1] == (
        f"{first} --network host -f {ROOT}/images/cpu/Dockerfile -t robolift-cpu:1 --build-arg BASE_IMAGE=base:1 "
        f"--build-arg HTTPS_PROXY=http://proxy.example.org:3128 --secret id=pip_conf,src={tmp_path}/pip.conf {ROOT}"
    )
