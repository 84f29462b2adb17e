"""The Dockerfiles keep to what a cluster and KFP ask of an image."""

import subprocess
import sys
from pathlib import Path

import image_tags
import pytest

from components._images import STAGE_IMAGES

ROOT = Path(__file__).parents[2]
HADOLINT = Path(sys.executable).parent / "hadolint"


def _runtime(name: str) -> list[str]:
    text = (ROOT / f"images/{name}/Dockerfile").read_text()
    return text.partition(" AS runtime")[2].splitlines()


@pytest.mark.parametrize("name", image_tags.NAMES)
def test_hadolint_finds_nothing(name):
    done = subprocess.run(
        [HADOLINT, f"images/{name}/Dockerfile"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("name", image_tags.NAMES)
def test_an_image_has_no_entrypoint_runs_as_10001_and_takes_the_base_it_is_given(name):
    text = (ROOT / f"images/{name}/Dockerfile").read_text()
    assert "ENTRYPOINT" not in text  # KFP's local runner would hand it its own arguments twice
    assert "ARG BASE_IMAGE=python:3.11-slim\n" in text
    assert [line for line in text.splitlines() if line.startswith("FROM ")] == [
        f"FROM ${{BASE_IMAGE}} AS {stage}" for stage in ("dependencies", "wheel", "runtime")
    ]
    assert [line for line in _runtime(name) if line.startswith("USER")] == ["USER 10001:0"]


@pytest.mark.parametrize("name", image_tags.NAMES)
def test_our_wheel_is_the_last_thing_that_is_laid_into_the_image(name):
    steps = [line for line in _runtime(name) if line.startswith(("RUN", "COPY", "ADD"))]
    assert steps[-1].startswith("COPY --from=wheel /installed")
    assert steps[-2].startswith("COPY --from=dependencies /opt/venv")


def test_every_stage_runs_in_an_image_that_is_built():
    assert set(STAGE_IMAGES.values()) <= set(image_tags.NAMES)


def test_the_review_image_says_how_the_page_is_served_and_the_others_which_stages_there_are():
    commands = {name: next(line for line in _runtime(name) if line.startswith("CMD")) for name in image_tags.NAMES}
    assert commands.pop("review") == 'CMD ["python", "-m", "robolift", "review", "--help"]'
    assert set(commands.values()) == {'CMD ["python", "-m", "robolift", "--help"]'}
