"""What the Kubeflow UI shows of a finished step: scalars, a page, and of a classifier its curve.

The page is Markdown: what was made, from what, with what numbers. ``write_report`` shows its own HTML page instead.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from robolift import storage
from robolift.manifest import Manifest

OUTCOMES_FILE = "outcomes.json"
SECTION_FILE = "section.md"
"""What a stage wants to stand on its page before everything else."""
OWN_PAGES = {"write_report": "report.html"}
MAX_SCALARS = 60
"""The UI lists scalars one below the other; a dataset of many tasks has thousands."""


def show(manifest: Manifest, shown: Mapping[str, Any]) -> None:
    """Fill a step's artifacts for the UI.

    Args:
        manifest: The finished output.
        shown: ``metrics`` (kfp.dsl.Metrics) and ``page`` (kfp.dsl.Markdown or HTML); ``outcomes``
            (kfp.dsl.ClassificationMetrics) where the stage writes outcomes.json.
    """
    for name, value in scalars(manifest).items():
        shown["metrics"].log_metric(name, value)
    path = Path(shown["page"].path)
    path.parent.mkdir(parents=True, exist_ok=True)
    own = OWN_PAGES.get(manifest.stage)
    path.write_bytes(storage.read_bytes(manifest.file(own)) if own else markdown(manifest).encode())
    where = manifest.file(OUTCOMES_FILE)
    if "outcomes" in shown and storage.exists(where):
        curve = storage.read_json(where)
        shown["outcomes"].log_roc_curve(curve["false_positive_rate"], curve["true_positive_rate"], curve["threshold"])
        shown["outcomes"].log_confusion_matrix(curve["categories"], curve["confusion"])


def scalars(manifest: Manifest) -> dict[str, float]:
    """Return counts and finite numbers of an output, nested names joined by ``/``, at most MAX_SCALARS.

    The pipeline's database takes no NaN and no null, so what is not known is left out.
    """
    found = dict(_numbers({**manifest.counts, **manifest.metrics()}))
    return dict(list(found.items())[:MAX_SCALARS])


def _numbers(document: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for name, value in document.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{name}/")
        elif isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
            yield f"{prefix}{name}", float(value)


def markdown(manifest: Manifest) -> str:
    """Return the page of an output: its address, numbers, inputs and configuration."""
    section = manifest.file(SECTION_FILE)
    parents = [(name, parent.uri) for name, several in sorted(manifest.inputs.items()) for parent in several]
    config = [(name, value) for name, value in sorted(manifest.config.items()) if value not in ("", None, [], {})]
    sections = [
        f"# {manifest.stage}",
        f"`{manifest.uri}`",
        storage.read_bytes(section).decode().rstrip() if storage.exists(section) else "",
        _table("Measured", [(name, f"{value:.6g}") for name, value in scalars(manifest).items()]),
        _table("Made from", [(name, f"`{uri}`") for name, uri in parents]),
        _table("Configuration", [(name, f"`{value}`") for name, value in config]),
        f"Kind {manifest.kind}, digest `{manifest.digest}`, code `{manifest.code[:16]}`.",
    ]
    return "\n\n".join(filter(None, sections)) + "\n"


def _table(title: str, rows: list[tuple[str, str]]) -> str:
    if not rows:
        return ""
    cells = (f"| {name} | {text.replace('|', chr(92) + '|')} |" for name, text in rows)
    return "\n".join([f"## {title}", "", "| | |", "|---|---|", *cells])
