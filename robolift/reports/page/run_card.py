"""Draws the run card and fills the page."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from robolift import schema
from robolift.manifest import Plan
from robolift.reports import (
    film,
    graph,
    headline,
    labels,
    lineage,
    overview,
    plots,
    rollout_film,
    training,
)
from robolift.reports.findings import Findings, Sources, iteration_rows, tell, unseen_estimation, why
from robolift.reports.page import estimator_section, templates

TEMPLATE = "run_card.html"


@dataclass(frozen=True, kw_only=True)
class Look:
    """What can be chosen about the page: see the stage's configuration."""

    title: str
    camera: str
    num_pictures: int
    picture_height: int
    num_task_stages: int


@dataclass(frozen=True, kw_only=True)
class EpisodeView:
    """One example episode, ready to show."""

    example: film.Example
    length: int
    pictures: tuple[film.Picture, ...]
    curves: Markup


def episode_views(found: Findings, look: Look) -> list[EpisodeView]:
    """Decode and draw the example episodes."""
    camera = film.choose_camera(found.dataset, look.camera)
    code, categories = labels.categories(found.frames)
    correcting = schema.CONTROL_MODES.index("correcting")
    views = []
    for example in film.pick_examples(found.frames, found.held_out):
        rows = found.frames.rows(example.episode)
        strip = (
            film.film_strip(
                found.dataset,
                found.frames,
                example.episode,
                camera,
                num_pictures=look.num_pictures,
                height=look.picture_height,
            )
            if camera
            else []
        )
        curves = plots.episode_curves(
            name=f"episode-{example.kind}",
            title=f"{example.title}: episode {example.episode}",
            value=found.frames.value[rows],
            value_std=found.frames.value_std[rows],
            value_target=None if found.frames.value_target is None else found.frames.value_target[rows],
            advantage=found.frames.advantage[rows],
            code=code[rows],
            categories=categories,
            target_name=found.target_name,
            is_human=found.frames.control_mode[rows] == correcting,
        )
        views.append(EpisodeView(example=example, length=rows.stop - rows.start, pictures=tuple(strip), curves=curves))
    return views


def advantage_figure(found: Findings) -> Markup | None:
    """Draw the histogram of the advantage over the frames that were compared; None when no frame has one."""
    frames = found.frames
    code, categories = labels.categories(frames)
    threshold = frames.reason == schema.LABEL_REASONS.index("threshold")
    rows = threshold & frames.valid & np.isfinite(frames.advantage)
    if not rows.any():
        return None
    return plots.advantage_histogram(
        frames.advantage[rows],
        code[rows],
        categories,
        () if found.has_slices else found.label_facts.cuts,
        what="frames labelled by their advantage",
    )


def calibration_figure(found: Findings) -> Markup | None:
    """Draw value against target; None where nothing says what the value should be, or its own section shows it."""
    target = found.frames.value_target
    if found.quality is None or found.estimations or target is None:
        return None
    rows = found.frames.mask(found.quality.episodes)
    return plots.calibration(target[rows], found.frames.value[rows], held_out=found.quality.held_out)


def training_figures(sources: Sources, found: Findings) -> dict[str, Markup]:
    """Draw the training curves that exist: of the value model, of the policies."""
    figures = {}
    if found.value_curves:
        figures["value"] = plots.training_curves(
            [found.value_curves], name="value-curves", title="Value model", num_columns=1
        )
    policies = training.policy_curves(sources.evaluations)
    if policies:
        figures["policies"] = plots.training_curves(
            policies, name="policy-curves", title="Policies", num_columns=4 if len(policies) != 3 else 3
        )
    return figures


def build_page(sources: Sources, found: Findings, look: Look, plan: Plan) -> str:
    """Return the run card as HTML.

    Args:
        sources: What the report rests on.
        found: What :func:`find` measured.
        look: Title, camera, film strips.
        plan: The report being written; the last node of the graph.
    """
    told = tell(found)
    frames = found.frames
    nodes = lineage.collect(plan)
    outcome = frames.outcome[frames.starts[:-1]]
    lengths = np.diff(frames.starts)
    return (
        templates.environment()
        .get_template(TEMPLATE)
        .render(
            title=look.title,
            told=told,
            found=found,
            baseline=found.baseline,
            method=next((row for row in found.rows if row.is_method), None),
            limits=headline.limits(
                found.rows,
                found.comparisons,
                simulator=found.dataset.simulator,
                seen=found.seen,
                value_seen=found.value_seen,
                differing=found.differing,
                value_held_out=found.quality is None or found.quality.held_out,
                annotated=bool(found.estimations),
            ),
            doubts=why(found),
            estimator=estimator_section.build(
                found,
                camera=look.camera,
                num_pictures=look.num_pictures,
                height=look.picture_height,
                num_stages=look.num_task_stages,
            ),
            unseen=unseen_estimation(found),
            num_stages=look.num_task_stages,
            duel=rollout_film.same_start(found.rollouts, num_pictures=look.num_pictures),
            views=episode_views(found, look),
            strip_left=100 * plots.EPISODE_LEFT / plots.WIDE,
            strip_right=100 * plots.EPISODE_RIGHT / plots.WIDE,
            camera=film.choose_camera(found.dataset, look.camera),
            advantage=advantage_figure(found),
            calibration=calibration_figure(found),
            curves=training_figures(sources, found),
            overview=overview.describe(found.dataset, frames),
            labelled_overview=overview.describe(found.labelled.dataset, found.labelled.frames)
            if found.labelled
            else None,
            lengths=plots.lengths_histogram(lengths, outcome, fps=found.dataset.fps),
            history=iteration_rows(found),
            drawing=graph.draw(nodes),
            nodes=nodes,
            **templates.look_of_the_page(),
        )
    )
