"""The one look of every plot: colours, type and the way a matplotlib figure becomes inline SVG.

Plots are drawn in the light palette and its colours are then replaced by CSS variables, so that one SVG follows the
reader's light or dark mode. Text stays text: the page's font applies, and a screen reader can reach it.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

POINTS_PER_INCH = 72

# name: (light, dark). Hues follow Okabe and Ito's set for colour-blind readers, darkened or lightened until graphics
# have a contrast of 3:1 and text of 4.5:1 against their card (a test computes it).
PALETTE: dict[str, tuple[str, str]] = {
    "page": ("#f5f6f8", "#0e1217"),
    "card": ("#ffffff", "#161b22"),
    "sunken": ("#eff1f4", "#1d232c"),
    "line": ("#dfe3e8", "#2c343f"),
    "ink": ("#18202b", "#e9edf2"),
    "muted": ("#596473", "#9aa6b5"),
    "accent": ("#2457c5", "#8ab0ff"),
    "positive": ("#0a6fb3", "#56b1f0"),
    "negative": ("#cc5500", "#f0914d"),
    "none": ("#838d9a", "#76818f"),
    "human": ("#a2457e", "#e08fc3"),
    "demo": ("#00806a", "#3dbd9d"),
    "paused": ("#8f7a00", "#cdb94f"),
}
TEXT_COLOURS = ("ink", "muted", "accent")
GRAPHIC_COLOURS = ("positive", "negative", "none", "human", "demo", "paused")


_BLEND = re.compile(r"blend-(\d+)")
_BLEND_MARK = "#fe00"


def blend(share: float) -> str:
    """Return the name of a colour between negative (0) and positive (1): the scale of slices."""
    return f"blend-{round(100 * share)}"


def css(name: str) -> str:
    """Return a colour as the page's CSS has it."""
    if found := _BLEND.fullmatch(name):
        return f"color-mix(in oklab, var(--positive) {found[1]}%, var(--negative))"
    return f"var(--{name})"


def light(name: str) -> str:
    """Return the hex value that stands for a colour in a plot, by which :func:`render` recognizes it."""
    if found := _BLEND.fullmatch(name):
        return f"{_BLEND_MARK}{int(found[1]):02x}"
    return PALETTE[name][0]


def css_variables(mode: int) -> str:
    """Return the palette as CSS declarations; mode 0 is light, 1 is dark."""
    return "\n".join(f"  --{name}: {colours[mode]};" for name, colours in PALETTE.items())


RC: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "robolift",
    "font.family": "DejaVu Sans",
    "font.size": 11.5,
    "text.color": light("ink"),
    "axes.edgecolor": light("line"),
    "axes.labelcolor": light("muted"),
    "axes.labelsize": 11.5,
    "axes.linewidth": 1.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.titlesize": 12.5,
    "axes.titlelocation": "left",
    "axes.titlecolor": light("ink"),
    "axes.titlepad": 10,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "grid.color": light("line"),
    "grid.linewidth": 1.0,
    "xtick.color": light("line"),
    "xtick.labelcolor": light("muted"),
    "xtick.labelsize": 11,
    "xtick.major.size": 4,
    "ytick.color": light("line"),
    "ytick.labelcolor": light("muted"),
    "ytick.labelsize": 11,
    "ytick.major.size": 0,
    "ytick.major.pad": 6,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "lines.solid_joinstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 11,
    "legend.handlelength": 1.4,
    "legend.labelcolor": light("muted"),
    "path.simplify": True,
    "axes.unicode_minus": True,
}


@contextmanager
def drawing() -> Iterator[None]:
    """Apply the style for the time of one plot, whatever a user's matplotlibrc says."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(RC)
        yield


def figure(width: int, height: int) -> Figure:
    """Return an empty figure of so many CSS pixels at its design size."""
    return Figure(figsize=(width / POINTS_PER_INCH, height / POINTS_PER_INCH))


def margins(fig: Figure, *, left: int = 48, right: int = 12, top: int = 12, bottom: int = 40, **gaps: float) -> None:
    """Set the margins around all axes, in CSS pixels."""
    width, height = (size * POINTS_PER_INCH for size in fig.get_size_inches())
    fig.subplots_adjust(
        left=left / width, right=1 - right / width, top=1 - top / height, bottom=bottom / height, **gaps
    )


def legend(ax: Axes, **options: Any) -> None:
    """Put a one-line legend above the axes, at their right end."""
    handles, _ = ax.get_legend_handles_labels()
    place: dict[str, Any] = {"loc": "lower right", "bbox_to_anchor": (1.0, 1.0), "ncol": max(len(handles), 1)}
    ax.legend(**{**place, "borderaxespad": 0.2, "columnspacing": 1.4, **options})


def render(fig: Figure, *, name: str, title: str, description: str) -> Markup:
    """Turn a figure into an inline ``<svg>`` whose colours are CSS variables.

    Args:
        fig: What was drawn inside :func:`drawing`.
        name: Unique in the page; prefixes every id of the SVG.
        title: What it shows, for a screen reader and as the tooltip.
        description: What a person sees in it, in words.

    Returns:
        Markup whose bytes depend on the figure alone.
    """
    buffer = io.StringIO()
    canvas: Any = FigureCanvasSVG(fig)
    canvas.print_svg(buffer, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # matplotlib's own style sheet would apply to the whole page.
    svg = re.sub(r"<!--.*?-->|<defs>\s*<style.*?</style>\s*</defs>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"\s+xmlns(:xlink)?=\"[^\"]*\"", "", svg).replace("xlink:href", "href")
    svg = _own_ids(svg, name)
    svg = re.sub(r"font: (?:(\d+) )?([\d.]+)px [^;\"]+", _font, svg)
    svg = re.sub(r' transform="rotate\(-?0 [^)]*\)"| font-family: [^;"]+;', "", svg)
    # Only inside tags: the numbers that people read stay as they are.
    svg = re.sub(r"<[^>]+>", lambda tag: re.sub(r"-?\d+\.\d{3,}", _short, tag[0]), svg)
    for colour, (value, _) in PALETTE.items():
        svg = svg.replace(value, f"var(--{colour})")
    svg = re.sub(f"{_BLEND_MARK}(..)", lambda found: css(blend(int(found[1], 16) / 100)), svg)
    labels = (
        f'<title id="{name}-title">{html.escape(title)}</title><desc id="{name}-desc">{html.escape(description)}</desc>'
    )
    view_box = re.search(r'viewBox="[^"]+"', svg)
    assert view_box is not None
    head = f'<svg class="plot" role="img" {view_box[0]} aria-labelledby="{name}-title {name}-desc">{labels}'
    body = svg[svg.index(">") + 1 :]
    body = re.sub(r"\s*\n\s*", " ", re.sub(r">\s+<", "><", body)).replace(' "', '"').strip()
    return Markup(head + body)  # our own drawing, its texts escaped by matplotlib


def _own_ids(svg: str, name: str) -> str:
    """Prefix the ids that something refers to and drop all others: several SVGs share the page."""
    used = set(re.findall(r"url\(#([^)]+)\)|href=\"#([^\"]+)\"", svg))
    names = {a or b for a, b in used}
    svg = re.sub(r' id="([^"]+)"', lambda found: f' id="{name}-{found[1]}"' if found[1] in names else "", svg)
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", svg)
    return re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', svg)


def _font(found: re.Match[str]) -> str:
    weight = f"; font-weight: {found[1]}" if found[1] else ""
    return f"font-size: {found[2]}px{weight}"


def _short(found: re.Match[str]) -> str:
    return f"{float(found[0]):.2f}".rstrip("0").rstrip(".")
