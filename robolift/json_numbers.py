"""Numbers as JSON can hold them: it has no NaN, no infinity and no NumPy."""

from __future__ import annotations

import functools
from typing import Any


@functools.singledispatch
def finite(value: Any) -> Any:
    """Return ``value`` with NaN and infinities as null and NumPy scalars as Python's, ready for JSON."""
    item = getattr(value, "item", None)
    if item is not None and getattr(value, "ndim", 0) == 0:
        return finite(item())
    return finite(value.tolist()) if hasattr(value, "tolist") else value


@finite.register
def _(value: float) -> float | None:
    return float(value) if value == value and abs(value) != float("inf") else None


@finite.register(dict)
def _(value: dict[Any, Any]) -> dict[Any, Any]:
    return {str(key): finite(item) for key, item in value.items()}


@finite.register(list)
@finite.register(tuple)
def _(value: Any) -> list[Any]:
    return [finite(item) for item in value]
