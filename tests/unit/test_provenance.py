from __future__ import annotations

import ast
from pathlib import Path

import pytest

from robolift import provenance


@pytest.fixture
def package(tmp_path, monkeypatch) -> Path:
    """A little copy of the product: two stages, a shared module, a plot with its template."""
    files = {
        "__init__.py": "__version__ = '1'\n",
        "errors.py": "",
        "schema.py": "",
        "labeling/__init__.py": "",
        "labeling/advantage.py": "from robolift import schema\n",
        "reports/__init__.py": "",
        "reports/card.py": "from . import plots\nfrom robolift.errors import RoboliftError\n",
        "reports/plots.py": "import math\n",
        "reports/card.html": "<html>",
        "stages/__init__.py": "NAMES = ()\n",
        "stages/label.py": "def run():\n    from robolift.labeling.advantage import n_step\n",
        "stages/report.py": "import robolift.reports.card\n",
    }
    for name, source in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(source)
    monkeypatch.setattr(provenance, "PACKAGE_DIR", tmp_path)
    provenance.code_digest.cache_clear()
    yield tmp_path
    provenance.code_digest.cache_clear()


def digests() -> dict[str, str]:
    provenance.code_digest.cache_clear()
    return {name: provenance.code_digest(f"robolift.stages.{name}") for name in ("label", "report")}


def changed(path: Path, text: str = "# edited\n") -> set[str]:
    before = digests()
    path.write_text(path.read_text() + text)
    after = digests()
    return {name for name in before if before[name] != after[name]}


def test_the_closure_follows_imports_wherever_they_stand(package):
    assert provenance.import_closure("robolift.stages.label") == (
        "robolift.labeling",
        "robolift.labeling.advantage",
        "robolift.schema",
        "robolift.stages.label",
    )
    assert provenance.import_closure("robolift.stages.report") == (
        "robolift.reports",
        "robolift.reports.card",
        "robolift.reports.plots",
        "robolift.stages.report",
    )


def imports_of(source: str) -> list[str]:
    statements = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Import | ast.ImportFrom))
    return sorted(ast.unparse(node) for node in statements)


ODDLY_WRITTEN = r'''
"""A text, and in it: \""" not yet its end
import nothing_of_a_text
"""
import robolift.a, robolift.b as c; from robolift import d  # import nothing_of_a_comment
from . robolift.e import (  # f )
    f,
    g as h,  # )
)
def work(my_import, reason="it's"):
    if my_import : from robolift.i import *
    else: import \
        robolift.j
    try: raise my_import(1) from reason
    finally: from .\
        k import(l)
    yield from my_import(__import__('import x'))  # "
    import robolift.m  # it's
    return 'import y', b"""import z""", f"{reason} from robolift import n", r'\' import', """\\"""
from..o import p
'''


def test_what_a_module_imports_is_found_however_it_is_written():
    found = filter(None, provenance.LEXEMES.findall(ODDLY_WRITTEN))
    assert imports_of("\n".join(found)) == imports_of(ODDLY_WRITTEN)
    assert len(imports_of(ODDLY_WRITTEN)) == 8


def test_what_the_product_imports_is_what_its_syntax_trees_import():
    for path in provenance.PACKAGE_DIR.rglob("*.py"):
        source = path.read_text()
        assert imports_of("\n".join(filter(None, provenance.LEXEMES.findall(source)))) == imports_of(source), path


@pytest.mark.parametrize(
    ("edited", "stages"),
    [
        ("stages/label.py", {"label"}),
        ("labeling/advantage.py", {"label"}),
        ("labeling/__init__.py", {"label"}),
        ("schema.py", {"label"}),
        ("reports/card.py", {"report"}),
        ("reports/plots.py", {"report"}),
        ("reports/card.html", {"report"}),
        ("errors.py", set()),
        ("stages/__init__.py", set()),
        ("__init__.py", set()),
    ],
)
def test_an_edit_changes_the_digest_of_the_stages_that_reach_it_and_of_no_other(package, edited, stages):
    assert changed(package / edited) == stages


def test_a_new_module_counts_once_it_is_imported(package):
    (package / "labeling" / "gae.py").write_text("x = 1\n")
    before = digests()["label"]
    assert changed(package / "labeling" / "gae.py") == set()
    assert changed(package / "labeling" / "advantage.py", "from robolift.labeling import gae\n") == {"label"}
    assert changed(package / "labeling" / "gae.py") == {"label"}
    assert digests()["label"] != before


def test_the_digest_does_not_depend_on_where_the_package_lies(package, tmp_path_factory, monkeypatch):
    before = digests()
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "robolift"
    package.rename(elsewhere)
    monkeypatch.setattr(provenance, "PACKAGE_DIR", elsewhere)
    assert digests() == before
    elsewhere.rename(package)


def test_a_module_that_is_only_named_to_be_run_counts(package):
    (package / "labeling" / "worker.py").write_text("x = 1\n")
    assert changed(package / "labeling" / "worker.py") == set()
    run = "COMMAND = ['python', '-m', 'robolift.labeling.worker', 'robolift.nothing', 'about robolift.reports.card']\n"
    assert changed(package / "labeling" / "advantage.py", run) == {"label"}
    assert changed(package / "labeling" / "worker.py") == {"label"}
    assert "robolift.reports.card" not in provenance.import_closure("robolift.stages.label")


def test_training_counts_the_modules_of_its_processes():
    closure = provenance.import_closure("robolift.stages.train_value")
    assert {"robolift.value_model.worker", "robolift.training.agent"} <= set(closure)


def test_every_real_stage_reaches_the_schema_and_none_the_neutral_modules():
    from robolift.stages import NAMES

    existing = [name for name in NAMES if provenance._file(f"robolift.stages.{name}")]
    for name in existing:
        closure = provenance.import_closure(f"robolift.stages.{name}")
        assert "robolift.schema" in closure
        assert not set(closure) & provenance.NEUTRAL


def test_a_package_that_lists_its_modules_reaches_all_of_them(package):
    registry = package / "reports" / "__init__.py"
    registry.write_text("import pkgutil\nNAMES = [module.name for module in pkgutil.iter_modules(__path__)]\n")
    (package / "stages" / "label.py").write_text("from robolift import reports\n")
    assert provenance.import_closure("robolift.stages.label") == (
        "robolift.reports",
        "robolift.reports.card",
        "robolift.reports.plots",
        "robolift.stages.label",
    )
    assert changed(package / "reports" / "plots.py") == {"label", "report"}
