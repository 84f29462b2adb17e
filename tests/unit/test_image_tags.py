"""The tag of an image says what is in it: nothing more goes in, and nothing less counts."""

import shutil
from pathlib import Path

import image_tags
import pytest

CPU_FILES = ("images/cpu/Dockerfile", "images/cpu/requirements.txt", "robolift/schema.py", "components/_artifacts.py")
ELSEWHERE = ("images/jax/Dockerfile", "README.md", "pipeline.py", "components/train_value/component.py", "Makefile")


@pytest.fixture
def sources(tmp_path, monkeypatch):
    """A small copy of everything that could matter."""
    for path in (*CPU_FILES, *ELSEWHERE, *image_tags.SHARED_FILES, "pyproject.toml", "LICENSE"):
        target = tmp_path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(f"{path}\n")
    for name in ("requirements-cpu.txt", "requirements-cuda.txt"):
        (tmp_path / "images/jax" / name).write_text(f"{name}\n")
    monkeypatch.setattr(image_tags, "ROOT", tmp_path)
    return tmp_path


def test_a_tag_is_of_twelve_hex_digits_and_the_same_each_time(sources):
    first = image_tags.content_tag("cpu")
    assert len(first) == 12
    assert set(first) <= set("0123456789abcdef")
    copy = sources.parent / "elsewhere"
    shutil.copytree(sources, copy)
    image_tags.ROOT = copy  # put back by the fixture
    assert image_tags.content_tag("cpu") == first


@pytest.mark.parametrize("path", [*CPU_FILES, *image_tags.SHARED_FILES, "pyproject.toml", "LICENSE"])
def test_a_change_of_what_goes_in_is_another_tag(sources, path):
    before = image_tags.content_tag("cpu")
    (sources / path).write_text("changed\n")
    assert image_tags.content_tag("cpu") != before


@pytest.mark.parametrize("path", ELSEWHERE)
def test_a_change_of_anything_else_is_the_same_tag(sources, path):
    before = image_tags.content_tag("cpu")
    (sources / path).write_text("changed\n")
    assert image_tags.content_tag("cpu") == before


def test_the_base_image_and_the_accelerator_count(sources):
    tag = image_tags.content_tag("jax")
    assert tag.startswith("cpu-")
    assert image_tags.content_tag("jax", base_image="python:3.11-slim@sha256:1") != tag
    assert image_tags.content_tag("jax", accelerator="cuda").startswith("cuda-")
    assert image_tags.content_tag("cpu", accelerator="cuda") == image_tags.content_tag("cpu", accelerator="cpu")


def test_a_file_that_is_added_or_moved_counts(sources):
    before = image_tags.content_tag("cpu")
    moved = sources / "robolift/data/schema.py"
    moved.parent.mkdir()
    shutil.move(sources / "robolift/schema.py", moved)
    assert image_tags.content_tag("cpu") != before


def test_every_file_that_a_dockerfile_copies_is_counted():
    root = Path(__file__).parents[2]
    for name in image_tags.NAMES:
        counted = image_tags.content_files(name, "cpu")
        assert "robolift/__main__.py" in counted
        assert "robolift/reports/page/run_card.html" in counted
        copied = [line.split()[1:-1] for line in (root / f"images/{name}/Dockerfile").read_text().splitlines()
                  if line.startswith("COPY ") and "--from" not in line]  # fmt: skip
        for source in (part.replace("${ACCELERATOR}", "cpu") for line in copied for part in line):
            files = [p.relative_to(root).as_posix() for p in root.glob(source) if p.is_file()] or [f"{source}/"]
            assert all(any(path == f or (f.endswith("/") and path.startswith(f)) for path in counted) for f in files)
