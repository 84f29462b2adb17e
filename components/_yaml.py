"""The YAML of a compiled pipeline: PyYAML's bytes, several times as quickly.

PyYAML takes every scalar through a dozen functions, character by character; libyaml breaks lines elsewhere. In a
specification nearly every scalar is a name, which stands as it is. For any other PyYAML is asked, once.
"""

import functools
import re
from typing import Any, Iterable, List, Mapping

import yaml

WIDTH = 80
"""PyYAML breaks a line at the first space beyond."""
LONGEST_KEY = 120
"""Soon after PyYAML writes ``? key``; no key of a pipeline comes near."""
WORDS = re.compile(r"[A-Za-z](?:[\w.,;/()' -]*[\w.,;/()'-])?", re.ASCII)
"""Text in which no character means anything in YAML outside brackets."""

SCALARS = yaml.representer.SafeRepresenter()
"""How PyYAML writes numbers, truth and nothing."""


def dump_all(documents: Iterable[Mapping[str, Any]]) -> str:
    """Return what ``yaml.dump_all(documents, Dumper=yaml.SafeDumper)`` does, but repeat what is shared.

    Args:
        documents: Mappings, not empty, of what JSON has; keys are text of one line.

    Raises:
        ValueError: If a key is no such text.
    """
    return "---\n".join(f"{_entries(document, 0)}\n" for document in documents)


def _entries(mapping: Mapping[str, Any], indent: int) -> str:
    """Return a mapping from its first key on."""
    lines = []
    for key in sorted(mapping):
        name, value = _key(key), mapping[key]
        if isinstance(value, dict) and value:
            text = f"{_line(indent + 2)}{_entries(value, indent + 2)}"
        elif isinstance(value, list) and value:
            text = f"{_line(indent)}{_items(value, indent)}"  # PyYAML doesn't indent a list in a mapping
        else:
            text = f" {_leaf(value, indent, indent + len(name) + 2)}"
        lines.append(f"{name}:{text}")
    return _line(indent).join(lines)


def _items(items: List[Any], indent: int) -> str:
    """Return a list from its first dash on."""
    lines = []
    for item in items:
        if isinstance(item, dict) and item:
            text = _entries(item, indent + 2)
        elif isinstance(item, list) and item:
            text = _items(item, indent + 2)
        else:
            text = _leaf(item, indent, indent + 2)
        lines.append(f"- {text}")
    return _line(indent).join(lines)


@functools.cache
def _line(indent: int) -> str:
    return "\n" + " " * indent


@functools.cache
def _is_words(text: str) -> bool:
    """Tell whether text stands as it is, and is read as text: ``true`` and ``null`` are not."""
    if not WORDS.fullmatch(text):
        return False
    return not any(kind.match(text) for _, kind in yaml.SafeDumper.yaml_implicit_resolvers.get(text[0], ()))


@functools.cache
def _key(key: str) -> str:
    text = key if _is_words(key) else str(yaml.dump({key: 0}, Dumper=yaml.SafeDumper)).removesuffix(": 0\n")
    if "\n" in text or len(text) > LONGEST_KEY:
        raise ValueError(
            f"key {key!r} of a pipeline's specification: expected a line, at most {LONGEST_KEY} characters"
        )
    return text


def _leaf(value: Any, indent: int, column: int) -> str:
    """Return a scalar or an empty collection that begins at ``column`` in a block indented by ``indent``."""
    if isinstance(value, str):
        stands = column + len(value) <= WIDTH and _is_words(value)
        return value if stands else _quoted_or_broken(value, indent, column)
    if isinstance(value, (dict, list)):
        return "{}" if isinstance(value, dict) else "[]"
    return str(SCALARS.represent_data(value).value)


@functools.cache
def _quoted_or_broken(text: str, indent: int, column: int) -> str:
    """Return what PyYAML writes for text in this place."""
    key = "k" * (column - indent - 2)
    node: Any = {key: text} if key else [text]
    before = column
    for level in range(0, indent if key else indent + 2, 2):
        node = {"k": node}
        before += level + len("k:\n")
    return str(yaml.dump(node, Dumper=yaml.SafeDumper))[before:-1]
