"""Draws the page on reward labels and fills it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from robolift import schema
from robolift.manifest import Plan
from robolift.reports import film, graph, lineage, overview, plots, rewards_examples, rewards_plots
from robolift.reports.page import templates
from robolift.reports.page.run_card import Look
from robolift.reports.rewards_examples import Example
from robolift.reports.rewards_findings import RewardFindings
from robolift.reports.rewards_people import MAX_LISTED, SLOPE_NAMES, TRI_NAMES
from robolift.reports.rewards_reviews import AGREEMENTS, reading

TEMPLATE = "reward_card.html"
STYLE_SHEET = "reward_card.css"
MAX_TASKS = 30
"""The page shows so many tasks; a dataset may have thousands."""


@dataclass(frozen=True, kw_only=True)
class EpisodeView:
    """One example episode, ready to show.

    Attributes:
        recorded: How it ended, as recorded.
        judged: How people say it ended; empty where they do not.
    """

    example: Example
    length: int
    recorded: str
    judged: str
    pictures: tuple[film.Picture, ...]
    curves: Markup


def build_page(found: RewardFindings, look: Look, plan: Plan) -> str:
    """Return the page as HTML.

    Args:
        found: What was measured.
        look: Title, camera, film strips.
        plan: The report being written; the last node of the graph.
    """
    nodes = lineage.collect(plan)
    facts = found.facts
    return templates.environment().get_template(TEMPLATE).render(
        title=look.title,
        told=found.told,
        found=found,
        facts=facts,
        bands=rewards_plots.progress_bands(found.bands, whose="the model" if facts.model else "whoever labelled")
        if found.bands
        else None,
        histograms=rewards_plots.end_histograms(found.ends) if found.ends else None,
        roc=rewards_plots.success_roc(found.ends) if found.ends else None,
        views=episode_views(found, look),
        camera=choose_camera(found, look),
        strip_left=100 * plots.EPISODE_LEFT / plots.WIDE,
        strip_right=100 * plots.EPISODE_RIGHT / plots.WIDE,
        by_task=[one for one in found.quality.measures if any(one.name in values for values in
                 found.quality.per_task.values())] if found.quality else [],
        outcome_names=schema.OUTCOMES,
        tri_names=TRI_NAMES,
        slope_names=SLOPE_NAMES,
        max_listed=MAX_LISTED,
        max_tasks=MAX_TASKS,
        agreements=AGREEMENTS,
        reading=reading,
        outcomes=overview.outcomes_by_kind(facts.dataset),
        lengths=plots.lengths_histogram(np.diff(facts.starts), facts.recorded, fps=facts.dataset.fps),
        drawing=graph.draw(nodes),
        nodes=nodes,
        **templates.look_of_the_page(STYLE_SHEET),
    )  # fmt: skip


def choose_camera(found: RewardFindings, look: Look) -> str | None:
    """Return the camera that was chosen, else the first that the model saw, else the dataset's first; None without any.

    Raises:
        UsageError: If the dataset has no such camera.
    """
    seen = found.labeller.settings.get("cameras") if found.labeller else None
    return film.choose_camera(found.facts.dataset, look.camera or (seen[0] if seen else ""))


def episode_views(found: RewardFindings, look: Look) -> list[EpisodeView]:
    """Decode and draw the example episodes."""
    facts = found.facts
    camera = choose_camera(found, look)
    views = []
    for example in rewards_examples.pick(facts, found.compared, found.labeller):
        rows = facts.rows(example.episode)
        human = facts.is_correcting[rows]
        strip = (
            film.episode_strip(
                facts.dataset,
                example.episode,
                camera,
                human,
                num_pictures=look.num_pictures,
                height=look.picture_height,
            )
            if camera
            else []
        )
        marks = facts.people.tri[rows] if facts.people else np.full(rows.stop - rows.start, np.nan)
        curves = rewards_plots.episode_curves(
            name=f"episode-{example.kind}",
            title=f"{example.title}: episode {example.episode}",
            progress=facts.judged.progress[rows],
            success_prob=facts.judged.success_prob[rows],
            anchor=facts.judged.anchor[rows],
            tri=marks,
            is_correcting=human,
        )
        views.append(
            EpisodeView(
                example=example,
                length=rows.stop - rows.start,
                recorded=schema.OUTCOMES[facts.recorded[example.episode]],
                judged=_judged(found, rows),
                pictures=tuple(strip),
                curves=curves,
            )
        )
    return views


def _judged(found: RewardFindings, rows: slice) -> str:
    last = found.facts.people.success_prob[rows.stop - 1] if found.facts.people else np.nan
    return "" if np.isnan(last) else schema.OUTCOMES[int(last < 0.5)]
