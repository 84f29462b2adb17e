"""Feature extractors, one file each, registered by being here; :mod:`robolift.clips.extractor` says what one is."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

from robolift.errors import UsageError

if TYPE_CHECKING:  # it loads OpenCV, and names are asked for where there is none
    from robolift.clips.extractor import Extractor


def names() -> list[str]:
    """Return the names of all extractors, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load(wanted: Sequence[str]) -> Mapping[str, Extractor]:
    """Return extractors by name, in the order asked for.

    Raises:
        UsageError: If one is unknown, or two fill the same column.
    """
    if unknown := sorted(set(wanted) - set(names())):
        raise UsageError(f"no extractor {', '.join(unknown)}; there are: {', '.join(names())}")
    found = {name: cast("Extractor", importlib.import_module(f"{__name__}.{name}")) for name in wanted}
    owner: dict[str, str] = {}
    for name, extractor in found.items():
        for column in (*extractor.SCALARS, *extractor.TRACKS):
            if column in owner:
                raise UsageError(f"extractors {owner[column]} and {name} both measure {column}; choose one of them")
            owner[column] = name
    return found
