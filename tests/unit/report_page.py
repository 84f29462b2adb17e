"""Runs the report on a synthetic run, and reads its page as a browser would."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from synthetic_run import SyntheticRun

from robolift import storage
from robolift.manifest import Manifest
from robolift.stages.stage import execute

VOID = {"meta", "img", "br", "rect", "path", "use", "link", "input", "hr"}


@dataclass
class Page(HTMLParser):
    """The page's elements: tags with attributes, in order, and the text of each tag name."""

    html: str
    tags: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    texts: list[tuple[str, str]] = field(default_factory=list)
    open_tags: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.html)
        self.faults += [f"<{tag}> is not closed" for tag in self.open_tags]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open_tags.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        if not self.open_tags or self.open_tags.pop() != tag:
            self.faults.append(f"</{tag}> closes something else")

    def handle_data(self, data: str) -> None:
        if data.strip() and self.open_tags:
            self.texts.append((self.open_tags[-1], re.sub(r"[ \n]+", " ", data).strip(" ")))

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def text(self, tag: str) -> list[str]:
        return [text for name, text in self.texts if name == tag]

    @property
    def words(self) -> str:
        return " ".join(text for name, text in self.texts if name != "style")


def write(run: SyntheticRun, config: dict[str, Any] | None = None, **inputs: Any) -> Manifest:
    given = {**run.build(), **inputs}
    return execute("write_report", config or {}, {name: uris for name, uris in given.items() if uris}, str(run.root))


def page_of(report: Manifest) -> Page:
    return Page(storage.read_bytes(report.file("report.html")).decode())


def summary_of(report: Manifest) -> dict[str, Any]:
    return storage.read_json(report.file("summary.json"))


def small(root: Path, **changes: Any) -> SyntheticRun:
    return SyntheticRun(root, **{"num_episodes": 8, "num_rollouts": 20, **changes})


def damage(uri: str, name: str, document: Any) -> None:
    storage.write_bytes(storage.join(uri, name), storage.to_json_bytes(document))
