"""Figures of the page on a clip reward."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.ticker import MaxNLocator

from robolift.reports import style
from robolift.reports.clip_reward import Floats
from robolift.reports.clip_validation import Line, Validation
from robolift.reports.intervals import Interval
from robolift.reports.numbers import decimal
from robolift.reports.plots import HALF, WIDE

ROW_HEIGHT = 30
MARK_HEIGHT = 14
NUM_BINS = 30
KINDS = {"annotated": "positive", "random": "none"}
Mark = tuple[str, float]


def intervals(
    rows: Mapping[str, Interval],
    *,
    name: str,
    title: str,
    axis: str,
    marks: Sequence[Mark] = (),
    strong: Sequence[str] = (),
) -> Markup:
    """Draw estimates as dots with their intervals, a row each, and marks as upright lines across all.

    Args:
        rows: At least one, from the top.
        name: Unique in the page.
        title: What it shows.
        axis: What the numbers are.
        marks: Name and place of each line; the first is solid, the others are dashed.
        strong: Rows whose dots are filled.
    """
    with style.drawing():
        above = 12 + MARK_HEIGHT * len(marks)
        fig = style.figure(HALF, 50 + above + ROW_HEIGHT * len(rows))
        ax = fig.add_subplot()
        for number, (label, at) in enumerate(marks):
            dashes = "-" if number == 0 else (0, (4, 3))
            ax.axvline(at, color=style.light("muted"), linewidth=1.1, linestyle=dashes)
            # Names of lines that are close to one another would meet on one level.
            ax.annotate(label, (at, 1.0), (0, 4 + MARK_HEIGHT * number), xycoords=("data", "axes fraction"),
                        textcoords="offset points", ha="center", va="bottom", color=style.light("muted"),
                        fontsize=11)  # fmt: skip
        for place, (row, one) in enumerate(rows.items()):
            colour = style.light("accent" if row in strong else "none")
            ax.plot([one.low, one.high], [place, place], color=colour, linewidth=5, alpha=0.5)
            inside = colour if row in strong else style.light("card")
            ax.plot([one.estimate], [place], "o", color=colour, markerfacecolor=inside, markersize=8)
        ax.set_ylim(len(rows) - 0.4, -0.6)
        ax.set_yticks(range(len(rows)), list(rows))
        ax.grid(visible=False, axis="y")
        ax.grid(visible=True, axis="x")
        ax.xaxis.set_major_locator(MaxNLocator(6))
        ax.set_xlabel(axis)
        style.margins(fig, left=max(60, 12 + 7 * max(map(len, rows))), top=above, right=20)
        told = [
            f"{row} {decimal(one.estimate)}, {decimal(one.low)} to {decimal(one.high)}" for row, one in rows.items()
        ]
        lines = "".join(f" {label} at {decimal(at)}." for label, at in marks)
        return style.render(fig, name=name, title=title, description=f"{'; '.join(told)}.{lines}")


def score_histogram(scores: Floats, kinds: Sequence[str]) -> Markup:
    """Draw how scores are distributed, stacked by the kind of clip.

    Args:
        scores: (n,) scores.
        kinds: (n,) kinds.
    """
    named = np.asarray(kinds, dtype=object)
    low, high = float(scores.min()), float(scores.max())
    edges = np.linspace(low, high if high > low else low + 1, NUM_BINS + 1)
    with style.drawing():
        fig = style.figure(HALF, 250)
        ax = fig.add_subplot()
        base = np.zeros(NUM_BINS)
        for kind in sorted(set(kinds)):
            counts, _ = np.histogram(scores[named == kind], edges)
            ax.bar(edges[:-1], counts, np.diff(edges) * 0.92, base, align="edge",
                   color=style.light(KINDS.get(kind, "demo")), label=kind)  # fmt: skip
            base += counts
        ax.axvline(float(np.median(scores)), color=style.light("ink"), linewidth=1.2, linestyle=(0, (4, 3)))
        ax.set_xlabel("score")
        ax.set_ylabel("clips")
        ax.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        style.legend(ax)
        style.margins(fig, left=52, top=28)
        return style.render(
            fig,
            name="scores",
            title="Scores of clips",
            description=f"Histogram of {len(scores)} scores from {decimal(low)} to {decimal(high)}, by kind of clip; "
            f"dashed: the median, {decimal(float(np.median(scores)))}.",
        )


def usefulness(found: Validation, line: Line | None) -> Markup:
    """Draw what training on a subset gains against its mean reward, with a line through the subsets."""
    with style.drawing():
        fig = style.figure(WIDE, 320)
        ax = fig.add_subplot()
        ax.axhline(0, color=style.light("muted"), linewidth=1, linestyle=(0, (4, 3)))
        if line is not None:
            band: Any = {"color": style.light("accent"), "alpha": 0.16, "linewidth": 0}
            ax.fill_between(line.x, line.low, line.high, label="95 % interval of the line", **band)
            ax.plot(line.x, line.y, color=style.light("accent"), label="least squares")
        ax.scatter(found.mean_score, found.delta_m, s=26, color=style.light("positive"), alpha=0.75, linewidth=0,
                   label="a subset of clips")  # fmt: skip
        ax.set_xlabel("mean reward of the subset's clips")
        ax.set_ylabel("ΔM, gain over random clips")
        ax.yaxis.set_major_locator(MaxNLocator(5))
        style.legend(ax)
        style.margins(fig, left=72, top=28)
        rising = "" if line is None else f"; the line {'rises' if line.slope > 0 else 'does not rise'}"
        return style.render(
            fig,
            name="usefulness",
            title="What training on clips gains, by their reward",
            description=f"{found.num_subsets} subsets; rho {decimal(found.rho.estimate)}, "
            f"{decimal(found.rho.low)} to {decimal(found.rho.high)}{rising}. Dashed: as good as random clips.",
        )
