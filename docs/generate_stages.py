"""Write docs/stages.md from the stages themselves: ``make docs``. A test fails when the file is stale."""

from __future__ import annotations

import enum
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from robolift.stages import NAMES
from robolift.stages.description import field_texts
from robolift.stages.stage import find

TARGET = Path(__file__).parent / "stages.md"
HEAD = """# Stages

Written by `make docs` from the stages' own code; edit the docstrings there.

Each stage is also a command: `python -m robolift STAGE --config FILE [--set field=value] [--dry-run]`. A pipeline hands
the same fields over under `stages: {STAGE: {field: value}}`. Fields marked *runtime* change how fast the work is done
and never its result, so they are no part of an output's identity.
"""
BOUNDS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<", "min_length": "length >=", "max_length": "length <="}


def render() -> str:
    """Return the whole page."""
    return "\n".join([HEAD, *(_stage(name) for name in NAMES)])


def _stage(name: str) -> str:
    stage = find(name)
    about = " ".join((sys.modules[f"robolift.stages.{name}"].__doc__ or "").split("\n\n")[0].split())
    lines = [f"## {name}", "", about, ""]
    for key, spec in stage.INPUTS.items():
        count = {(False, False): "one", (True, False): "none or one", (False, True): "one or more"}
        lines.append(f"- input `{key}`: {count.get((spec.optional, spec.many), 'any number of')} `{spec.kind}`")
    lines += [f"- output: `{stage.OUTPUT}`", "", "| field | type | default | |", "|---|---|---|---|"]
    lines += _rows(stage.Config, runtime=stage.Config.RUNTIME)
    return "\n".join([*lines, ""])


def _rows(model: type[BaseModel], *, prefix: str = "", runtime: frozenset[str] = frozenset()) -> list[str]:
    """Return one table row a field, those of a nested model under its dotted name."""
    rows: list[str] = []
    texts = field_texts(model)
    for key, field in model.model_fields.items():
        nested = _model_in(field.annotation)
        words = ["*runtime*"] if key in runtime else []
        words.append(texts[key])
        cells = [f"`{prefix}{key}`", _type(field), _default(field, nested=nested is not None), ". ".join(words)]
        rows.append(f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |")
        if nested is not None:
            rows += _rows(nested, prefix=f"{prefix}{key}.")
    return rows


def _model_in(annotation: Any) -> type[BaseModel] | None:
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _type(field: FieldInfo) -> str:
    return ", ".join([_name(field.annotation), *_bounds(field.metadata)])


def _bounds(metadata: Sequence[Any]) -> list[str]:
    return [f"{sign} {getattr(m, key)}" for m in metadata for key, sign in BOUNDS.items() if hasattr(m, key)]


def _name(annotation: Any) -> str:
    """Return a type as a reader of YAML would say it."""
    origin, inner = get_origin(annotation), [part for part in get_args(annotation) if part is not Ellipsis]
    if origin is Annotated:
        return ", ".join([_name(inner[0]), *_bounds(inner[1].metadata if isinstance(inner[1], FieldInfo) else inner)])
    if origin is Literal:
        return " or ".join(f"`{choice}`" for choice in inner)
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return " or ".join(f"`{choice.value}`" for choice in annotation)
    if origin in (Union, UnionType):
        return " or ".join("null" if part is NoneType else _name(part) for part in inner)
    if origin in (list, tuple, set, frozenset):
        return f"list of {_name(inner[0])}"
    if origin is dict or annotation is dict:
        return "mapping"
    return str(getattr(annotation, "__name__", annotation))


def _default(field: FieldInfo, *, nested: bool) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if nested and isinstance(value, BaseModel):
        return ""
    return f"`{json.dumps(to_jsonable_python(value), ensure_ascii=False)}`"


if __name__ == "__main__":
    TARGET.write_text(render(), encoding="utf-8")
