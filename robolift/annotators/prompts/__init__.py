"""The questions a model is asked: one versioned text file a protocol, or a file of the user's.

A prompt file has sections, each headed by its name in brackets on a line of its own:

* ``[system]``: the system message, maybe empty;
* ``[opening]`` and ``[closing]``: what stands before and after the pictures;
* ``[moment]``: what stands before each picture;
* ``[reference]``: of ``shuffled`` alone, what stands before the pictures of the first moment, which is not judged;
* ``[reprompt]``: what is said, once, to an answer that can't be read.

Names in braces are filled in; a brace that is meant is written twice.
"""

from __future__ import annotations

import hashlib
import re
import string
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources

from robolift import storage
from robolift.errors import UsageError

HEADING = re.compile(r"^\[([a-z]+)\]$", re.MULTILINE)
ALLOWED: dict[str, frozenset[str]] = {
    "system": frozenset({"task"}),
    "opening": frozenset({"task", "num_frames"}),
    "moment": frozenset({"number", "camera"}),
    "closing": frozenset({"task", "num_frames"}),
    "reprompt": frozenset({"problem", "num_frames"}),
}
REFERENCE = {"reference": frozenset({"camera"})}
MAY_BE_EMPTY = frozenset({"system", "closing"})


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A prompt file, checked.

    Attributes:
        text: The whole file.
        sections: Its sections by name.
    """

    text: str
    sections: Mapping[str, str] = field(repr=False)

    @property
    def sha256(self) -> str:
        """Digest of the file, 64 hex digits."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def fill(self, section: str, **values: str | int) -> str:
        """Return a section with its placeholders filled in."""
        return self.sections[section].format(**values)


def load_prompt(protocol: str, version: str, uri: str = "") -> Prompt:
    """Load the prompt of a protocol, or one of the user's.

    Raises:
        UsageError: If the file is not a prompt of this protocol.
        DataError: If it can't be read.
    """
    if not uri:
        name = f"{protocol}.{version}.txt"
        return parse_prompt(resources.files(__name__).joinpath(name).read_text(encoding="utf-8"), protocol, where=name)
    try:
        text = storage.read_bytes(uri).decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"{uri} is not UTF-8 text: {error}") from None
    return parse_prompt(text, protocol, where=uri)


def parse_prompt(text: str, protocol: str, *, where: str) -> Prompt:
    """Cut a prompt file into sections and check their placeholders.

    Raises:
        UsageError: Naming each section or placeholder that is unknown, missing or malformed.
    """
    head, *rest = HEADING.split(text)
    sections = {name: body.strip() for name, body in zip(rest[::2], rest[1::2], strict=True)}
    allowed = ALLOWED | (REFERENCE if protocol == "shuffled" else {})
    problems = []
    if head.strip():
        problems.append(f"text before the first section: {head.strip()[:60]!r}")
    problems += [f"section [{name}] stands twice" for name in sections if rest[::2].count(name) > 1]
    problems += [f"unknown section [{name}]" for name in sections if name not in allowed]
    problems += [f"section [{name}] is missing" for name in allowed if name not in sections]
    problems += [
        f"section [{name}] is empty" for name in allowed if sections.get(name) == "" and name not in MAY_BE_EMPTY
    ]
    if not problems:
        problems = _placeholder_problems(sections, allowed, protocol)
    if problems:
        raise UsageError("\n  ".join([f"{where} is not a prompt of {protocol}:", *problems]))
    return Prompt(text=text, sections=sections)


def _placeholder_problems(
    sections: Mapping[str, str], allowed: Mapping[str, frozenset[str]], protocol: str
) -> list[str]:
    problems = []
    used: dict[str, set[str]] = {}
    for name, body in sections.items():
        try:
            fields = [(key, form, how) for _, key, form, how in string.Formatter().parse(body) if key is not None]
        except ValueError as error:
            problems.append(f"[{name}]: {error}; write a brace that is meant twice")
            continue
        used[name] = {key for key, _, _ in fields}
        problems += [
            f"[{name}]: unknown placeholder {{{key}}}; there are: {', '.join(sorted(allowed[name]))}"
            for key, form, how in fields
            if key not in allowed[name] or form or how
        ]
    asked = used.get("opening", set()) | used.get("closing", set())
    needed = {"task", "num_frames"} if protocol == "shuffled" else {"task"}
    problems += [f"[opening] or [closing] must have {{{key}}}" for key in sorted(needed - asked)]
    for name, keys in (("moment", {"number", "camera"}), ("reference", {"camera"}), ("reprompt", {"problem"})):
        if name in sections:
            problems += [f"[{name}] must have {{{key}}}" for key in sorted(keys - used.get(name, set()))]
    return problems
