"""What a stage says of itself, to ``--describe`` and to its page of the docs."""

from __future__ import annotations

import ast
import enum
import inspect
import sys
from itertools import pairwise

from pydantic import BaseModel

from robolift.stages.stage import find


def describe(name: str) -> str:
    """Return the inputs, the output and the configuration of the stage ``name``, a line or two each.

    Raises:
        UsageError: If there is no such stage.
    """
    stage = find(name)
    lines = [f"{name}: {' '.join((stage.Config.__doc__ or '').split())}", "inputs:"]
    for key, spec in stage.INPUTS.items():
        lines.append(f"  {key}: {spec.kind}{' (optional)' if spec.optional else ''}{' (many)' if spec.many else ''}")
    lines += [f"output: {stage.OUTPUT}", "config:"]
    texts = field_texts(stage.Config)
    for key, field in stage.Config.model_fields.items():
        value = field.get_default(call_default_factory=True)
        default = repr(value.value if isinstance(value, enum.Enum) else value)
        lines.append(f"  {key} = {'(required)' if field.is_required() else default}")
        lines.append(f"      {texts[key]}")
    return "\n".join(lines)


def field_texts(model: type[BaseModel]) -> dict[str, str]:
    """Return what describes each field of a configuration, on one line: the docstring below it; empty if there is none.

    They are read from the source. pydantic could do so, but each time a class is made: at every start of a stage.
    """
    texts = {key: field.description or "" for key, field in model.model_fields.items()}
    for owner in reversed(model.__mro__):
        if {key for key in vars(owner).get("__annotations__", ()) if not texts.get(key, "-")}:
            texts |= {key: text for key, text in _docstrings(owner).items() if not texts.get(key, "-")}
    return {key: " ".join(text.split()) for key, text in texts.items()}


def _docstrings(model: type[BaseModel]) -> dict[str, str]:
    """Return the docstrings below the fields that a class declares itself."""
    # Asked for the source of a class, inspect first looks through all modules there are.
    found: ast.AST = ast.parse(inspect.getsource(sys.modules[model.__module__]))
    for name in model.__qualname__.replace(".<locals>", "").split("."):
        found = next(
            node for node in ast.walk(found) if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name
        )
    assert isinstance(found, ast.ClassDef)
    texts = {}
    for pair in pairwise(found.body):
        match pair:
            case ast.AnnAssign(target=ast.Name(id=key)), ast.Expr(value=ast.Constant(value=str(text))):
                texts[key] = text
    return texts
