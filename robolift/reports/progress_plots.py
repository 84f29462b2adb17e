"""Figures of a progress estimator: its progress over the pictures of an episode, beside the annotated one."""

from __future__ import annotations

import numpy as np
from markupsafe import Markup
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from robolift.reports import style
from robolift.reports.plots import EPISODE_LEFT, EPISODE_RIGHT, WIDE, Floats, spans, thin


def progress_curves(
    *, name: str, title: str, predicted: Floats, annotated: Floats, num_stages: int, is_human: NDArray[np.bool_]
) -> Markup:
    """Draw predicted and annotated progress of one episode under its film strip.

    Args:
        name: Unique in the page.
        title: Which episode it is.
        predicted: (T,) predicted progress.
        annotated: (T,) annotated progress, counted as the prediction is.
        num_stages: Equal parts of progress; lines are drawn between them, none for fewer than 2.
        is_human: (T,) whether a person was correcting.
    """
    frame = np.arange(len(predicted), dtype=np.float64) + 0.5
    with style.drawing():
        fig = style.figure(WIDE, 190)
        ax = fig.add_subplot()
        for edge in range(1, num_stages):
            ax.axhline(edge / num_stages, color=style.light("muted"), linewidth=0.8, linestyle=(0, (1, 3)))
        ax.plot(
            *thin(frame, annotated), color=style.light("muted"), linewidth=1.3, linestyle=(0, (4, 3)), label="annotated"
        )
        ax.plot(*thin(frame, predicted), color=style.light("accent"), label="predicted")
        text = "person corrects"
        for start, stop in spans(is_human):
            ax.axvspan(start, stop, color=style.light("human"), alpha=0.13, linewidth=0, label=text)
            text = "_"
        ax.set_xlim(0, len(predicted))
        ax.yaxis.set_major_locator(MaxNLocator(4))
        ax.set_ylabel("progress")
        ax.set_xlabel("frame")
        style.legend(ax)
        style.margins(fig, left=EPISODE_LEFT, right=EPISODE_RIGHT, top=24)
        error = np.abs(predicted - annotated).mean()
        ends = f"annotated from {annotated[0]:.2f} to {annotated[-1]:.2f}, predicted to {predicted[-1]:.2f}"
        return style.render(
            fig,
            name=name,
            title=title,
            description=f"{len(predicted)} frames; progress {ends}, mean absolute difference {error:.3f}.",
        )
