"""How the pages are filled: their templates, and the look that they share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from robolift.reports import numbers, style

STYLE_SHEET = "run_card.css"


def environment() -> Environment:
    """Return the templates, with everything escaped that is no markup of our own, and numbers written one way."""
    found = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Any] = {
        "per_cent": numbers.per_cent,
        "points": numbers.points,
        "interval_points": numbers.interval_points,
        "interval_per_cent": numbers.interval_per_cent,
        "count": numbers.count,
        "decimal": numbers.decimal,
        "css": style.css,
    }
    found.filters.update(filters)
    return found


def look_of_the_page(*more_sheets: str) -> dict[str, Markup]:
    """Return style sheets and the colours of light and dark mode, as the page's head expects them."""
    sheets = [(Path(__file__).parent / name).read_text(encoding="utf-8") for name in (STYLE_SHEET, *more_sheets)]
    return {
        "style_sheet": Markup("\n".join(sheets)),
        "light": Markup(style.css_variables(0)),
        "dark": Markup(style.css_variables(1)),
    }
