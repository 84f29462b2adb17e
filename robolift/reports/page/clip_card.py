"""Draws the page on a clip reward and fills it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from robolift.manifest import Manifest, Plan
from robolift.reports import clip_films, clip_plots, graph, lineage
from robolift.reports.clip_films import Film
from robolift.reports.clip_findings import ClipFindings
from robolift.reports.clip_headline import told_interval
from robolift.reports.clip_reward import Clip
from robolift.reports.clip_validation import fit_line
from robolift.reports.page import templates
from robolift.reports.rewards_reviews import reading

TEMPLATE = "clip_card.html"
STYLE_SHEETS = ("reward_card.css", "clip_card.css")
MAX_LISTED = 12
MAX_WEIGHTS = 20


@dataclass(frozen=True, kw_only=True)
class Figures:
    """The page's drawings; None where there is nothing to draw."""

    scores: Markup
    usefulness: Markup | None
    rho: Markup | None
    ablations: Markup | None
    auc: Markup | None
    weights: Markup | None


def build_page(found: ClipFindings, clips: Manifest, plan: Plan, *, title: str, num_pictures: int) -> str:
    """Return the page as HTML.

    Args:
        found: What was measured.
        clips: The ClipSet, for its videos.
        plan: The report being written; the last node of the graph.
        title: Name of the run.
        num_pictures: Pictures in each moving clip.
    """
    nodes = lineage.collect(plan)
    return templates.environment().get_template(TEMPLATE).render(
        title=title,
        told=found.told,
        found=found,
        figures=draw(found),
        films=[
            ("The best", "highest scores", films(clips, found.top, first=1, step=1, num_pictures=num_pictures)),
            ("The worst", "lowest scores, the lowest first",
             films(clips, found.bottom, first=len(found.clips), step=-1, num_pictures=num_pictures)),
        ],
        told_interval=told_interval,
        reading=reading,
        max_listed=MAX_LISTED,
        drawing=graph.draw(nodes),
        nodes=nodes,
        **templates.look_of_the_page(*STYLE_SHEETS),
    )  # fmt: skip


def films(clips: Manifest, shown: Sequence[Clip], *, first: int, step: int, num_pictures: int) -> list[Film]:
    """Draw clips small, numbered by their places."""
    places = range(first, first + step * len(shown), step)
    return [
        clip_films.film(clips, clip, place=place, num_pictures=num_pictures)
        for place, clip in zip(places, shown, strict=True)
    ]


def draw(found: ClipFindings) -> Figures:
    """Draw everything that there is."""
    validation, model = found.validation, found.model
    scores = clip_plots.score_histogram(
        np.array([clip.score for clip in found.clips]), [clip.kind for clip in found.clips]
    )
    line = fit_line(validation.mean_score, validation.delta_m) if validation else None
    rho = ablations = auc = weights = None
    if validation:
        rho = clip_plots.intervals(
            {"this reward": validation.rho, **{_words(name): one for name, one in validation.controls.items()}},
            name="rho",
            title="Correlation of mean reward and gain",
            axis="ρ (Spearman)",
            marks=[("0", 0.0), ("asked", validation.rho_min), ("shuffled", validation.shuffled)],
            strong=["this reward"],
        )
    if validation and validation.ablations:
        ablations = clip_plots.intervals(
            {one.name: one.loss for one in validation.ablations},
            name="ablations",
            title="What leaving features out costs",
            axis="loss of ρ",
            marks=[("none", 0.0)],
            strong=[one.name for one in validation.ablations if one.passed],
        )
    if model and model.held_out:
        expected = model.expected_auc
        auc = clip_plots.intervals(
            {"this reward": model.held_out.auc, **{_words(name): one.auc for name, one in model.controls.items()}},
            name="pair-auc",
            title="Held-out pairs ordered as people did",
            axis="pair-AUC",
            marks=[("chance", 0.5), *([("true order", expected)] if expected is not None else [])],
            strong=["this reward"],
        )
    if model and model.weights:
        weights = clip_plots.intervals(
            {_words(name): one for name, one in list(model.weights.items())[:MAX_WEIGHTS]},
            name="weights",
            title="Weights of features",
            axis="reward for one standard deviation more",
            marks=[("nothing", 0.0)],
            strong=[_words(name) for name, one in model.weights.items() if one.low > 0 or one.high < 0],
        )
    usefulness = clip_plots.usefulness(validation, line) if validation else None
    return Figures(scores=scores, usefulness=usefulness, rho=rho, ablations=ablations, auc=auc, weights=weights)


def _words(name: str) -> str:
    return name.replace("_", " ")
