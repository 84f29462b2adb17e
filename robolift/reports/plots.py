"""Every matplotlib figure of the run card; each returns inline SVG with a description in words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from robolift import schema
from robolift.reports import style
from robolift.reports.frames import Codes
from robolift.reports.labels import Cut
from robolift.reports.training import HELD_OUT, TRAIN, Curves

Floats = NDArray[np.float64]
Categories = Sequence[tuple[str, str]]

WIDE = 940
HALF = 420
EPISODE_LEFT, EPISODE_RIGHT = 52, 8
MAX_POINTS = 600
MAX_DOTS = 500
MAX_CUT_LINES = 6
NUM_BINS = 48
CALIBRATION_BINS = 14


def _thousands(value: float, _: int) -> str:
    return f"{value:,.0f}".replace(",", "\u202f")


def lengths_histogram(lengths: NDArray[np.int64], outcome: NDArray[np.int64], *, fps: float) -> Markup:
    """Draw how long the episodes are, stacked by outcome.

    Args:
        lengths: (E,) frames of each episode.
        outcome: (E,) codes into OUTCOMES.
        fps: Frames a second.
    """
    colours = ("positive", "negative", "none")
    low, high = int(lengths.min()), int(lengths.max())
    edges = np.linspace(low - 0.5, high + 0.5, min(24, high - low + 1) + 1)
    with style.drawing():
        fig = style.figure(HALF, 220)
        ax = fig.add_subplot()
        base = np.zeros(len(edges) - 1)
        for code, (name, colour) in enumerate(zip(schema.OUTCOMES, colours, strict=True)):
            counts, _ = np.histogram(lengths[outcome == code], edges)
            if counts.sum():
                ax.bar(
                    edges[:-1], counts, np.diff(edges) * 0.92, base, align="edge", color=style.light(colour), label=name
                )
                base += counts
        ax.set_xlabel("frames in an episode")
        ax.set_ylabel("episodes")
        ax.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        style.legend(ax)
        style.margins(fig, top=28)
        seconds = f"{low / fps:.1f} to {high / fps:.1f} s"
        return style.render(
            fig,
            name="lengths",
            title="Episode lengths by outcome",
            description=f"Histogram of {len(lengths)} episodes of {low} to {high} frames ({seconds}).",
        )


def advantage_histogram(
    advantage: Floats, code: Codes, categories: Categories, cuts: Sequence[Cut], *, what: str
) -> Markup:
    """Draw how the advantage is distributed, coloured by label, with the cut of each group.

    Args:
        advantage: (n,) finite advantages.
        code: (n,) label of each frame, a position in ``categories``.
        categories: Name and colour of each label.
        cuts: Where the groups were cut; lines are drawn for at most six.
        what: Which frames these are.
    """
    # A few far outliers would squeeze everything else into one bin; they are counted in the outermost ones.
    low, high = np.quantile(advantage, [0.002, 0.998])
    if high <= low:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, NUM_BINS + 1)
    clipped = np.clip(advantage, low, high)
    with style.drawing():
        fig = style.figure(WIDE, 270)
        ax = fig.add_subplot()
        base = np.zeros(NUM_BINS)
        for number, (name, colour) in reversed(list(enumerate(categories))):
            counts, _ = np.histogram(clipped[code == number], edges)
            if counts.sum():
                ax.bar(
                    edges[:-1], counts, np.diff(edges) * 0.9, base, align="edge", color=style.light(colour), label=name
                )
                base += counts
        for cut in cuts[:MAX_CUT_LINES]:
            ax.axvline(cut.cut, color=style.light("ink"), linewidth=1.2, linestyle=(0, (4, 3)))
        if cuts:
            text = f"cut {cuts[0].cut:.4f}" if len(cuts) == 1 else f"cuts of {len(cuts)} groups"
            ax.annotate(text, (cuts[0].cut, 1.0), (6, -4), xycoords=("data", "axes fraction"),
                        textcoords="offset points", va="top", color=style.light("ink"), fontsize=11)  # fmt: skip
        ax.set_xlim(low, high)
        ax.set_xlabel(f"advantage of {what}")
        ax.set_ylabel("frames")
        ax.yaxis.set_major_formatter(FuncFormatter(_thousands))
        ax.yaxis.set_major_locator(MaxNLocator(4))
        style.legend(ax)
        style.margins(fig, left=58, top=30)
        median = f"median {np.median(advantage):.4f}"
        return style.render(
            fig,
            name="advantage",
            title="Distribution of the advantage",
            description=f"Histogram of {len(advantage)} {what}, coloured by label, {median}; dashed: cuts.",
        )


def training_curves(curves: Sequence[Curves], *, name: str, title: str, num_columns: int) -> Markup:
    """Draw train and held-out loss, one small panel for each training, on shared axes.

    Args:
        curves: What to draw, at least one.
        name: Unique in the page.
        title: What was trained.
        num_columns: Panels beside one another.
    """
    num_columns = min(num_columns, len(curves))
    rows = -(-len(curves) // num_columns)
    lows = [loss.min() for one in curves for _, loss in one.series.values()]
    highs = [np.quantile(loss, 0.98) for one in curves for _, loss in one.series.values()]
    pad = 0.06 * max(max(highs) - min(lows), 1e-9)
    with style.drawing():
        width = HALF if num_columns == 1 else WIDE
        fig = style.figure(width, 40 + 180 * rows)
        axes = fig.subplots(rows, num_columns, sharex=True, sharey=True, squeeze=False).ravel()
        for ax, one in zip(axes, curves, strict=False):
            for key, colour, label in ((TRAIN, "none", "train"), (HELD_OUT, "accent", "held out")):
                if key in one.series:
                    ax.plot(*thin(*one.series[key]), color=style.light(colour), label=label)
            ax.set_ylim(min(lows) - pad, max(highs) + pad)
            if len(curves) > 1:
                ax.set_title(one.name)
            ax.set_xlabel("step")
            ax.xaxis.set_major_locator(MaxNLocator(4))
            ax.xaxis.set_major_formatter(FuncFormatter(_thousands))
            ax.yaxis.set_major_locator(MaxNLocator(4))
        for ax in axes[len(curves) :]:
            ax.remove()
        for ax in axes[::num_columns]:
            ax.set_ylabel("loss")
        labelled = max(axes[: len(curves)], key=lambda ax: len(ax.get_lines()))
        handles, texts = labelled.get_legend_handles_labels()
        fig.legend(handles, texts, loc="upper right", ncol=2, borderaxespad=0.1)
        style.margins(fig, left=58, top=44 if len(curves) > 1 else 30, bottom=42, wspace=0.12, hspace=0.5)
        ends = "; ".join(f"{one.name}: {_ends(one)}" for one in curves)
        return style.render(fig, name=name, title=title, description=f"Loss by step. {ends}.")


def _ends(curves: Curves) -> str:
    parts = [(label, curves.last(key)) for key, label in ((TRAIN, "train"), (HELD_OUT, "held out"))]
    return ", ".join(f"{label} ends at {loss:.4g}" for label, loss in parts if loss is not None)


def thin(x: Floats, *ys: Floats) -> tuple[Floats, ...]:
    """Keep at most MAX_POINTS points of a line, evenly spaced, the last always among them."""
    if len(x) <= MAX_POINTS:
        return (x, *ys)
    kept = np.unique(np.linspace(0, len(x) - 1, MAX_POINTS).round().astype(np.int64))
    return (x[kept], *(y[kept] for y in ys))


def calibration(
    target: Floats,
    value: Floats,
    *,
    held_out: bool,
    name: str = "calibration",
    axes: tuple[str, str] = ("value target", "predicted value"),
) -> Markup:
    """Draw predicted value against value target: frames as dots, median and middle 80 % by bin of the target.

    Args:
        target: (n,) value targets.
        value: (n,) predicted values.
        held_out: Whether the model was not trained on these frames.
        name: Unique in the page.
        axes: What target and value are called.
    """
    shown = np.unique(np.linspace(0, len(target) - 1, min(MAX_DOTS, len(target))).round().astype(np.int64))
    low, high = min(target.min(), value.min()), max(target.max(), value.max())
    edges = np.linspace(target.min(), target.max() + 1e-9, CALIBRATION_BINS + 1)
    bins = np.digitize(target, edges) - 1
    filled = [b for b in range(CALIBRATION_BINS) if (bins == b).any()]
    centres = np.asarray([target[bins == b].mean() for b in filled])
    spread = np.asarray([np.quantile(value[bins == b], [0.1, 0.5, 0.9]) for b in filled])
    with style.drawing():
        fig = style.figure(HALF, 220)
        ax = fig.add_subplot()
        ax.plot([low, high], [low, high], color=style.light("muted"), linewidth=1, linestyle=(0, (4, 3)))
        ax.scatter(target[shown], value[shown], s=7, color=style.light("none"), alpha=0.45, linewidth=0)
        ax.fill_between(centres, spread[:, 0], spread[:, 2], color=style.light("accent"), alpha=0.18, linewidth=0)
        ax.plot(centres, spread[:, 1], color=style.light("accent"), label="median and middle 80 %")
        ax.set_xlabel(axes[0])
        ax.set_ylabel(axes[1])
        ax.xaxis.set_major_locator(MaxNLocator(5))
        ax.yaxis.set_major_locator(MaxNLocator(4))
        style.legend(ax)
        style.margins(fig, left=58, top=28)
        which = "frames of held-out episodes" if held_out else "frames, those of training among them"
        return style.render(
            fig,
            name=name,
            title=f"{axes[1].capitalize()} against {axes[0]}",
            description=f"{len(target)} {which}; the dashed diagonal is a perfect prediction.",
        )


def episode_curves(
    *,
    name: str,
    title: str,
    value: Floats,
    value_std: Floats,
    value_target: Floats | None,
    advantage: Floats,
    code: Codes,
    categories: Categories,
    target_name: str,
    is_human: NDArray[np.bool_],
) -> Markup:
    """Draw one episode under its film strip: value with its band and target above, advantage by label below.

    Args:
        name: Unique in the page.
        title: Which episode it is.
        value: (T,) predicted value.
        value_std: (T,) standard deviation of the prediction.
        value_target: (T,) what the value should be, None where nothing says so.
        advantage: (T,) advantage, NaN where a frame has none.
        code: (T,) label of each frame, a position in ``categories``.
        categories: Name and colour of each label.
        target_name: What the target is.
        is_human: (T,) whether a person was correcting.
    """
    frame = np.arange(len(value), dtype=np.float64) + 0.5
    with style.drawing():
        fig = style.figure(WIDE, 300)
        upper, lower = fig.subplots(2, 1, sharex=True, height_ratios=(1.35, 1))
        at, mean, std = thin(frame, value, value_std)
        if value_target is not None:
            dashed = {"color": style.light("muted"), "linewidth": 1.3, "linestyle": (0, (4, 3))}
            upper.plot(*thin(frame, value_target), label=target_name, **dashed)
        if std.any():
            upper.fill_between(at, mean - std, mean + std, color=style.light("accent"), alpha=0.16, linewidth=0)
        band = " ± 1 std" if std.any() else ""
        upper.plot(at, mean, color=style.light("accent"), label=f"predicted value{band}")
        upper.set_ylabel("value")
        _advantage_bars(lower, advantage, code, categories)
        lower.axhline(0, color=style.light("muted"), linewidth=0.8)
        lower.set_ylabel("advantage")
        shown = len(value) / MAX_POINTS
        lower.set_xlabel("frame" if shown <= 1 else f"frame (each bar the mean of about {shown:.0f})")
        lower.set_xlim(0, len(value))
        for ax, text in ((upper, "person corrects"), (lower, "_")):
            ax.yaxis.set_major_locator(MaxNLocator(4))
            for start, stop in spans(is_human):
                ax.axvspan(start, stop, color=style.light("human"), alpha=0.13, linewidth=0, label=text)
                text = "_"  # one entry in the legend is enough
        style.legend(upper)
        style.legend(lower)
        fig.align_ylabels()
        style.margins(fig, left=EPISODE_LEFT, right=EPISODE_RIGHT, top=24, hspace=0.24)
        described = f"{len(value)} frames; value from {value[0]:.2f} to {value[-1]:.2f}, lowest {value.min():.2f}"
        return style.render(fig, name=name, title=title, description=f"{described}; {_shares(code, categories)}.")


def _advantage_bars(ax: Axes, advantage: Floats, code: Codes, categories: Categories) -> None:
    edges, heights, label = binned(np.nan_to_num(advantage), code, len(categories))
    for number, (name, colour) in enumerate(categories):
        rows = label == number
        if rows.any():
            ax.stairs(np.where(rows, heights, 0.0), edges, fill=True, color=style.light(colour), label=name)


def binned(advantage: Floats, code: Codes, num_codes: int) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Return edges, heights and label of the bars: one a frame, or MAX_POINTS of mean height and commonest label."""
    num = min(len(advantage), MAX_POINTS)
    edges = np.linspace(0, len(advantage), num + 1).round().astype(np.int64)
    heights = np.add.reduceat(advantage, edges[:-1]) / np.diff(edges)
    votes = [np.add.reduceat((code == number).astype(np.int64), edges[:-1]) for number in range(num_codes)]
    return edges.astype(np.float64), heights, np.argmax(votes, axis=0)


def _shares(code: Codes, categories: Categories) -> str:
    counts = np.bincount(code, minlength=len(categories)).tolist()
    return ", ".join(f"{n} {name}" for (name, _), n in zip(categories, counts, strict=True) if n)


def spans(flags: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return the (start, stop) of every run of true flags."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return [(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]
