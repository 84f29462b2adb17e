"""The chart rendered by Helm's own library, and what every rendered object is held against."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import helm_python
import jsonschema
import kubernetes_validate
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "robolift"
SCHEMAS = Path(__file__).parent / "schemas"
# The chart's oldest Kubernetes and the newest one there are schemas of.
KUBERNETES = ("1.29", "1.37")
VALUES_FILES = {"values": {}} | {
    path.stem.removesuffix("-values"): yaml.safe_load(path.read_text())
    for path in sorted((CHART / "ci").glob("*.yaml"))
}
# Values files of the chart's ci/ folder under which all cluster-wide and optional objects come up at least once.
NAMESPACE = "runs"
RELEASE = "rel"


@cache
def _chart() -> helm_python.Chart:
    return helm_python.Chart.load(CHART)


def render(values: dict[str, Any] | None = None, *, base: str = "values") -> list[dict[str, Any]]:
    """Return every rendered object of the chart, with ``values`` over the values file ``base``."""
    merged = merge(VALUES_FILES[base], values or {})
    files = _chart().render(merged, name=RELEASE, namespace=NAMESPACE)
    return [
        document
        for path, text in sorted(files.items())
        if path.endswith(".yaml")
        for document in yaml.safe_load_all(text)
        if document
    ]


def notes(values: dict[str, Any] | None = None, *, base: str = "values") -> str:
    """Return what Helm prints after an install."""
    files = _chart().render(merge(VALUES_FILES[base], values or {}), name=RELEASE, namespace=NAMESPACE)
    return next(text for path, text in files.items() if path.endswith("NOTES.txt"))


def of_kind(kind: str, values: dict[str, Any] | None = None, *, base: str = "values") -> dict[str, dict[str, Any]]:
    """Return the rendered objects of one kind by name."""
    return {item["metadata"]["name"]: item for item in render(values, base=base) if item["kind"] == kind}


def merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Lay ``above`` over ``below`` as Helm does: maps are merged, lists replaced."""
    result = copy.deepcopy(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merge(result[key], value) if both else copy.deepcopy(value)
    return result


def validate(document: dict[str, Any]) -> None:
    """Check one object strictly: Kubernetes' kinds by its own schemas, custom ones by ours of the fields we emit."""
    schema = SCHEMAS / f"{document['kind'].lower()}.json"
    if schema.exists():
        jsonschema.validate(document, json.loads(schema.read_text()))
        return
    for version in KUBERNETES:
        kubernetes_validate.validate(document, version, strict=True)


def pod_specs(documents: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (name, pod spec) of everything that runs pods."""
    for item in documents:
        spec = item.get("spec") or {}
        if item["kind"] == "Pod":
            yield item["metadata"]["name"], spec
        elif item["kind"] == "Deployment":
            yield item["metadata"]["name"], spec["template"]["spec"]
        elif item["kind"] == "CronJob":
            yield item["metadata"]["name"], spec["jobTemplate"]["spec"]["template"]["spec"]


def key_paths(node: Any, prefix: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every mapping below ``node``, itself first."""
    if isinstance(node, dict):
        yield prefix
        for key, value in node.items():
            yield from key_paths(value, (*prefix, key))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from key_paths(value, (*prefix, index))
