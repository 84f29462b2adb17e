"""The released helm binary sees the chart as its library does. `make chart` runs the same without the tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from rendered_chart import CHART, NAMESPACE, RELEASE, ROOT, VALUES_FILES, render

pytestmark = pytest.mark.slow  # fetches 39 MB once


@pytest.fixture(scope="session")
def helm():
    environment = Path(sys.prefix)
    out = subprocess.run(
        ["bash", str(ROOT / "scripts" / "helm_binary.sh"), str(environment)], check=True, capture_output=True, text=True
    )
    return out.stdout.strip()


def values_options(base):
    return [] if base == "values" else ["-f", str(CHART / "ci" / f"{base}-values.yaml")]


@pytest.mark.parametrize("base", VALUES_FILES)
def test_lint_passes(helm, base):
    subprocess.run([helm, "lint", "--strict", str(CHART), *values_options(base)], check=True)


@pytest.mark.parametrize("base", VALUES_FILES)
def test_template_gives_what_the_library_renders(helm, base):
    command = [helm, "template", RELEASE, str(CHART), "-n", NAMESPACE, *values_options(base)]
    out = subprocess.run(command, check=True, capture_output=True, text=True)
    documents = [document for document in yaml.safe_load_all(out.stdout) if document]

    def order(item):
        return item["kind"], item["metadata"]["name"]

    assert sorted(documents, key=order) == sorted(render(base=base), key=order)


def test_a_typo_is_refused(helm):
    out = subprocess.run(
        [helm, "template", str(CHART), "--set", "trainer.tpyo=1"], capture_output=True, text=True, check=False
    )
    assert out.returncode != 0
    assert "tpyo" in out.stderr
