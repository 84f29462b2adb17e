"""The writer of compiled files: PyYAML's bytes for whatever a specification may hold."""

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from components import _yaml

PIECES = [
    *("the value of", "name", "import kfp", "null", "yes", "1e3", "3.5", "2026-01-02", "=", "<<", "~"),
    *(
        "a: b",
        "a #b",
        "- a",
        "---",
        "{{$.inputs}}",
        "it's",
        '"',
        "\\",
        "\n",
        "\n\n",
        "  ",
        "\t",
        "é",
        "\u2028",
        "x" * 90,
    ),
]
TEXT = st.text(max_size=20) | st.lists(st.sampled_from(PIECES), max_size=30).map(" ".join)
KEY = st.text("abxyz-_./09:#'{%é", min_size=1, max_size=12) | st.sampled_from(["true", "null", "a b", "<<", "k" * 110])
SCALAR = TEXT | st.none() | st.booleans() | st.integers() | st.floats()
NODE = st.recursive(
    SCALAR, lambda node: st.lists(node, max_size=4) | st.dictionaries(KEY, node, max_size=4), max_leaves=12
)


class WithoutAliases(yaml.SafeDumper):
    """PyYAML's writer, which writes again what it has written."""

    def ignore_aliases(self, data: object) -> bool:
        """Repeat everything."""
        return True


def by_pyyaml(documents):
    return yaml.dump_all(documents, Dumper=WithoutAliases, sort_keys=True)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.dictionaries(KEY, NODE, min_size=1, max_size=4), min_size=1, max_size=2))
def test_it_writes_what_pyyaml_writes(documents):
    assert _yaml.dump_all(documents) == by_pyyaml(documents)


@pytest.mark.parametrize("depth", [0, 1, 4])
def test_lines_break_where_pyyaml_breaks_them(depth):
    texts = ["ab " * (length // 3) + "c" * (length % 3 + 1) + " the end" for length in range(50, 85)]
    node = {"items": [*texts, [*texts, texts]], **{f"key {number}": text for number, text in enumerate(texts)}}
    for _ in range(depth):
        node = {"inner": node, "both": [node, [node]]}
    assert _yaml.dump_all([node]) == by_pyyaml([node])


def test_what_is_shared_is_written_each_time():
    shared = {"labels": ["a", "b"], "annotations": {}, "items": []}
    written = "  annotations: {}\n  items: []\n  labels:\n  - a\n  - b\n"
    assert _yaml.dump_all([{"one": shared, "two": shared}, {"a": 1}]) == f"one:\n{written}two:\n{written}---\na: 1\n"


@pytest.mark.parametrize("key", ["", "a\nb", "k" * 200, "é" * 40])
def test_a_key_that_is_no_name_is_refused(key):
    with pytest.raises(ValueError, match="of a pipeline's specification: expected a line"):
        _yaml.dump_all([{"outer": {key: 1}}])
