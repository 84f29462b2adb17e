"""Figures of the page on reward labels; outcomes differ by line, panel and name, never by colour alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from robolift.reports import style
from robolift.reports.plots import EPISODE_LEFT, EPISODE_RIGHT, HALF, WIDE, spans, thin
from robolift.reports.rewards import Flags, Floats
from robolift.reports.rewards_measures import GRID, Band, Ends
from robolift.reports.rewards_people import TRI, TRI_NAMES

COLOURS = {"success": "positive", "failure": "negative", "unknown": "none"}
LINES: dict[str, str | tuple[int, tuple[int, ...]]] = {"success": "-", "failure": (0, (5, 2))}
PLURALS = {"success": "successes", "failure": "failures"}
NUM_BINS = 20
MAX_ANCHORS = 120


def progress_bands(bands: Sequence[Band], *, whose: str) -> Markup:
    """Draw median and middle 80 % of progress over the share of time that has passed, an outcome a line.

    Args:
        bands: At least one.
        whose: Who says it.
    """
    grid = np.linspace(0, 1, GRID)
    with style.drawing():
        fig = style.figure(HALF, 250)
        ax = fig.add_subplot()
        ax.plot([0, 1], [0, 1], color=style.light("muted"), linewidth=1, linestyle=(0, (1, 3)), label="clock")
        for band in bands:
            colour = style.light(COLOURS[band.outcome])
            ax.fill_between(grid, band.low, band.high, color=colour, alpha=0.16, linewidth=0)
            ax.plot(grid, band.median, color=colour, linestyle=LINES[band.outcome], label=PLURALS[band.outcome])
        ax.set_xlim(0, 1)
        ax.set_ylim(-0.03, 1.03)
        ax.set_xlabel("share of the episode's time")
        ax.set_ylabel("progress")
        ax.xaxis.set_major_locator(MaxNLocator(5))
        ax.yaxis.set_major_locator(MaxNLocator(5))
        style.legend(ax)
        style.margins(fig, left=52, top=28)
        ends = "; ".join(f"{band.n} {PLURALS[band.outcome]} end at a median of {band.median[-1]:.2f}" for band in bands)
        return style.render(
            fig,
            name="progress-bands",
            title="Progress over time, successes against failures",
            description=f"Median and middle 80 % of the progress that {whose} says; {ends}. Dotted: a clock.",
        )


def end_histograms(ends: Ends) -> Markup:
    """Draw how what is said of last frames is distributed, a panel for each outcome."""
    shown = {outcome: scores for outcome, scores in ends.scores.items() if len(scores)}
    edges = np.linspace(0, 1, NUM_BINS + 1)
    with style.drawing():
        fig = style.figure(HALF, 250)
        axes = fig.subplots(len(shown), 1, sharex=True, squeeze=False).ravel()
        for ax, (outcome, scores) in zip(axes, shown.items(), strict=True):
            counts, _ = np.histogram(np.clip(scores, 0, 1), edges)
            ax.bar(edges[:-1], counts, 0.92 / NUM_BINS, align="edge", color=style.light(COLOURS[outcome]))
            ax.axvline(float(np.median(scores)), color=style.light("ink"), linewidth=1.2, linestyle=(0, (4, 3)))
            ax.set_title(f"{len(scores)} {PLURALS[outcome]}, median {np.median(scores):.2f}")
            ax.yaxis.set_major_locator(MaxNLocator(3, integer=True))
            ax.set_ylabel("episodes")
            ax.set_xlim(0, 1)
        axes[-1].set_xlabel(f"{ends.name} in the last frame")
        style.margins(fig, left=52, top=30, hspace=0.5)
        medians = "; ".join(f"{PLURALS[name]}: median {np.median(scores):.2f}" for name, scores in shown.items())
        return style.render(
            fig,
            name="ends",
            title=f"{ends.name.capitalize()} in last frames, by outcome",
            description=f"Histograms, one above the other. {medians}, dashed.",
        )


def success_roc(ends: Ends) -> Markup | None:
    """Draw the ROC curve of what is said of last frames; None without episodes of both outcomes."""
    if ends.curve is None or ends.auroc is None:
        return None
    with style.drawing():
        fig = style.figure(HALF, 250)
        ax = fig.add_subplot()
        ax.plot([0, 1], [0, 1], color=style.light("muted"), linewidth=1, linestyle=(0, (4, 3)), label="clock, chance")
        ax.plot(
            ends.curve.false_positive_rate, ends.curve.true_positive_rate, color=style.light("accent"), label=ends.name
        )
        ax.set_xlim(-0.02, 1.02)
        ax.set_ylim(-0.02, 1.04)
        ax.set_xlabel("share of failures at or above the cut")
        ax.set_ylabel("share of successes")
        ax.yaxis.set_major_locator(MaxNLocator(5))
        style.legend(ax)
        style.margins(fig, left=52, top=28)
        return style.render(
            fig,
            name="success-roc",
            title="Success told from failure",
            description=f"ROC curve of the {ends.name} in the last frame; area under it {ends.auroc:.3f}.",
        )


def episode_curves(
    *,
    name: str,
    title: str,
    progress: Floats,
    success_prob: Floats,
    anchor: Flags,
    tri: Floats,
    is_correcting: Flags,
) -> Markup:
    """Draw one episode under its film strip: progress and success above, what people marked below.

    Args:
        name: Unique in the page.
        title: Which episode it is.
        progress: (T,) progress, NaN where nobody said.
        success_prob: (T,) probability of success, NaN where nobody said.
        anchor: (T,) where the model was really asked.
        tri: (T,) people's -1, 0, 1, NaN where they did not mark; the lower part is left out without any.
        is_correcting: (T,) whether a person was correcting.
    """
    length, marked = len(progress), bool(np.isfinite(tri).any())
    with style.drawing():
        fig = style.figure(WIDE, 280 if marked else 200)
        panels = fig.subplots(2 if marked else 1, 1, sharex=True, squeeze=False,
                              height_ratios=(2.1, 1) if marked else None).ravel()  # fmt: skip
        _said(panels[0], progress, success_prob, anchor)
        if marked:
            _marks(panels[1], tri)
        text = "person corrects"
        for start, stop in spans(is_correcting):
            panels[0].axvspan(start, stop, color=style.light("human"), alpha=0.13, linewidth=0, label=text)
            text = "_"
        panels[-1].set_xlim(0, length)
        panels[-1].set_xlabel("frame")
        if panels[0].get_legend_handles_labels()[0]:
            style.legend(panels[0])
        style.margins(fig, left=EPISODE_LEFT, right=EPISODE_RIGHT, top=24, hspace=0.18)
        return style.render(fig, name=name, title=title, description=_describe(progress, success_prob, anchor, tri))


def _said(ax: Axes, progress: Floats, success_prob: Floats, anchor: Flags) -> None:
    frame = np.arange(len(progress), dtype=np.float64) + 0.5
    if np.isfinite(progress).any():
        ax.plot(*thin(frame, progress), color=style.light("accent"), label="progress")
    if np.isfinite(success_prob).any():
        dashed: Any = {"color": style.light("demo"), "linewidth": 1.4, "linestyle": (0, (5, 2))}
        ax.plot(*thin(frame, success_prob), label="success probability", **dashed)
    asked = np.flatnonzero(anchor & np.isfinite(progress))
    if len(asked):
        shown = asked[np.unique(np.linspace(0, len(asked) - 1, min(len(asked), MAX_ANCHORS)).round().astype(np.int64))]
        ax.plot(frame[shown], progress[shown], "o", color=style.light("accent"), markersize=4.5, label="asked here")
    ax.set_ylim(-0.04, 1.04)
    ax.set_ylabel("said")
    ax.yaxis.set_major_locator(MaxNLocator(5))
    if not np.isfinite(progress).any() and not np.isfinite(success_prob).any():
        ax.annotate("nothing was said of this episode", (0.5, 0.5), xycoords="axes fraction", ha="center",
                    color=style.light("muted"), fontsize=12)  # fmt: skip


def _marks(ax: Axes, tri: Floats) -> None:
    edges = np.arange(len(tri) + 1, dtype=np.float64)
    # Height says what was marked; a run of frames is one bar, so a long episode stays small.
    for value in TRI:
        for start, stop in spans(tri == value):
            ax.fill_between(edges[[start, stop]], value - 0.3, value + 0.3, color=style.light("human"), linewidth=0)
    ax.set_ylim(-1.6, 1.6)
    ax.set_yticks(TRI, [f"{value:+d}" if value else "0" for value in TRI])
    ax.set_ylabel("people")


def _describe(progress: Floats, success_prob: Floats, anchor: Flags, tri: Floats) -> str:
    parts = [f"{len(progress)} frames, {int(anchor.sum())} of them asked about"]
    known = progress[np.isfinite(progress)]
    if len(known):
        parts.append(f"progress from {known[0]:.2f} to {known[-1]:.2f}")
    said = success_prob[np.isfinite(success_prob)]
    if len(said):
        parts.append(f"success probability {said[-1]:.2f} at the end")
    marks = [f"{int((tri == value).sum())} {name}" for value, name in zip(TRI, TRI_NAMES, strict=True)]
    if np.isfinite(tri).any():
        parts.append(f"frames that people marked: {', '.join(marks)}")
    return "; ".join(parts) + "."
