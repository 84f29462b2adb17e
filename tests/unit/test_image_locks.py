"""The locked sets of the images: exact, at the versions everything else is tested with, and complete."""

import re
import tomllib
from pathlib import Path

import image_locks
import pytest

ROOT = Path(__file__).parents[2]
LOCKS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "images").glob("**/requirements*.txt"))


def _name(requirement: str) -> str:
    return re.match(r"[\w.-]+", requirement)[0].lower().replace("_", "-")


def test_there_is_a_lock_for_every_image_and_no_other():
    made = {*image_locks.EXTRAS, *image_locks.PINS, "torch/requirements-cpu.txt"}
    assert set(LOCKS) == {f"images/{path}" for path in made}


@pytest.mark.parametrize("path", LOCKS)
def test_a_lock_pins_the_versions_that_the_tests_run_with(path):
    expected = image_locks.pins(image_locks.CONSTRAINTS)
    found = image_locks.pins(ROOT / path)
    assert {name: version for name, version in found.items() if expected.get(name) != version} == {}


@pytest.mark.parametrize("path", image_locks.EXTRAS)
def test_a_lock_has_every_package_that_its_extras_ask_for(path):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = {_name(requirement) for requirement in project["dependencies"]}
    for extra in image_locks.EXTRAS[path]:
        asked |= {_name(requirement) for requirement in project["optional-dependencies"][extra]}
    assert asked - set(image_locks.pins(ROOT / "images" / path)) == set()


def test_the_torch_sets_differ_in_cuda_s_libraries_alone():
    cuda, cpu = (image_locks.pins(ROOT / f"images/torch/requirements-{kind}.txt") for kind in ("cuda", "cpu"))
    only = set(cuda.items()) - set(cpu.items())
    assert set(cpu.items()) - set(cuda.items()) == set()
    assert {"nvidia-nccl-cu13", "nvidia-cudnn-cu13", "triton"} <= {name for name, _ in only}
    assert all(re.match(r"nvidia-|cuda-|triton", name) for name, _ in only)
    assert cpu["torch"] == "2.13.0"


def test_heavy_libraries_are_only_where_they_belong():
    of = {path: set(image_locks.pins(ROOT / path)) for path in LOCKS}
    assert {"torch", "jax", "mujoco", "kfp"}.isdisjoint(of["images/cpu/requirements.txt"])
    assert {"jax", "mujoco"}.isdisjoint(of["images/torch/requirements-cpu.txt"])
    assert "torch" not in of["images/jax/requirements-cuda.txt"]
    assert "kubernetes" in of["images/cpu/requirements.txt"]
    assert {"fastapi", "uvicorn", "av"} <= of["images/review/requirements.txt"]
