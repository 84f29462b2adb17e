from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest
import toy_stage

from robolift.errors import DataError
from robolift.stages import stage

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


@pytest.fixture
def generator():
    spec = importlib.util.spec_from_file_location("generate_stages", ROOT / "docs" / "generate_stages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_stages_is_what_the_stages_say(generator):
    assert generator.TARGET.read_text(encoding="utf-8") == generator.render(), "run `make docs`"


def test_a_stage_is_described_by_its_configuration(generator, monkeypatch):
    toy_stage.install(monkeypatch)
    assert generator._stage("toy").splitlines() == [
        "## toy",
        "",
        "A stage small enough to reason about, for the tests of what surrounds every stage.",
        "",
        "- input `before`: none or one `ValueTargets`",
        "- input `others`: any number of `ValueTargets`",
        "- output: `ValueTargets`",
        "",
        "| field | type | default | |",
        "|---|---|---|---|",
        "| `rows` | int | `3` | How many rows to write. |",
        "| `seed` | int | `0` | Seed of the run. |",
        "| `num_workers` | int | `1` | *runtime*. Processes; the result is the same. |",
        '| `note` | str | `""` | Anything. |',
        "| `part` | Nested |  | Options of a part. |",
        "| `part.size` | int | `2` | How large. |",
        "| `scores` | list of float | `[]` | Numbers reported as metrics. |",
        '| `fault` | str | `""` | *runtime*. What to do in the middle: data, bug, interrupt, kill, term. |',
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    broken = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert broken == []


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "adr").glob("0*.md")), ids=lambda page: page.stem)
def test_a_decision_record_has_its_four_parts_on_one_page(page):
    text = page.read_text(encoding="utf-8")
    headings = re.findall(r"^## (.+)$", text, flags=re.MULTILINE)
    assert headings == ["Context", "Decision", "Consequences", "What would change our mind"]
    assert text.startswith(f"# {int(page.name[:4])}. ")
    assert len(text.splitlines()) <= 60


@pytest.fixture
def example(tmp_path, monkeypatch):
    """Load a part of the worked example in CONTRIBUTING.md as the module it says it is."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")

    def load(part: str, name: str):
        (block,) = re.findall(rf"<!-- {part} -->\n```python\n(.*?)```", text, flags=re.DOTALL)
        path = tmp_path / f"{part}.py"
        path.write_text(block)
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module

    return load


def test_the_worked_example_runs_and_its_tests_pass(example, monkeypatch, dataset, output_root):
    example("stage", "robolift.stages.read_progress")
    monkeypatch.setattr(stage, "NAMES", (*stage.NAMES, "read_progress"))
    tests = example("test", "test_read_progress")

    tests.test_value_is_progress_less_one(dataset, output_root)
    tests.test_a_column_that_is_no_progress_is_refused(dataset, output_root)
    with pytest.raises(DataError, match=r"first: episode \d, frame \d+: 1\.0"):
        stage.execute("read_progress", {"column": "timestamp"}, {"dataset": dataset.uri}, output_root)


def test_the_worked_example_s_component_calls_its_stage(example, monkeypatch):
    pytest.importorskip("kfp")
    from components import _images

    monkeypatch.setitem(_images.STAGE_IMAGES, "read_progress", "cpu")
    component = example("component", "example_component").read_progress

    assert component.component_spec.inputs["dataset"].type == "system.EpisodeDataset@1.0.0"
    assert component.component_spec.outputs["values"].type == "system.ValueSet@1.0.0"
