"""The page's section on a progress estimator: what is drawn and said of each set of annotated episodes."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from robolift import schema
from robolift.reports import film, plots, progress_plots
from robolift.reports.estimator import Along, Estimation, annotated_progress
from robolift.reports.findings import Findings
from robolift.reports.labels import Bar, stacked

MEASURES = {
    "rank_agreement": (
        "Agreement with the annotation",
        "Spearman's rank correlation of predicted and annotated progress within an episode. 1: the same order.",
    ),
    "value_order_success": (
        "Order in time, successes",
        "Value-order correlation (GVL, arXiv 2411.04549): Spearman's correlation of progress with time. 1: it only "
        "ever rises.",
    ),
    "value_order_failure": (
        "Order in time, failures",
        "The same. Failures go back and forth, so the annotation's own value is what to reach, not 1.",
    ),
    "value_order_unknown": ("Order in time, outcome unknown", "The same, where nothing says how the episode ended."),
    "roughness": (
        "Roughness",
        "Mean absolute second difference, in thousandths of the task per frame squared. 0: steady progress (the "
        "penalty of l1 trend filtering, Kim et al. 2009).",
    ),
}
NUM_FILMS = 2


@dataclass(frozen=True, kw_only=True)
class MeasureRow:
    """One measure along episodes, on each set that has it; its numbers are multiplied by ``scale`` to be read."""

    title: str
    meaning: str
    by_set: tuple[Along | None, ...]
    scale: float
    digits: int


@dataclass(frozen=True, kw_only=True)
class SetView:
    """One set of annotated episodes, ready to show."""

    found: Estimation
    calibration: Markup
    stage_bars: tuple[Bar, ...]


@dataclass(frozen=True, kw_only=True)
class FilmView:
    """One annotated episode, ready to show."""

    example: film.Example
    length: int
    pictures: tuple[film.Picture, ...]
    curves: Markup


@dataclass(frozen=True, kw_only=True)
class Section:
    """Everything the section shows."""

    sets: tuple[SetView, ...]
    measures: tuple[MeasureRow, ...]
    films: tuple[FilmView, ...]


def build(found: Findings, *, camera: str, num_pictures: int, height: int, num_stages: int) -> Section | None:
    """Draw the section; None when values are no progress, or nothing is annotated."""
    if not found.estimations:
        return None
    return Section(
        sets=tuple(_view(one) for one in found.estimations),
        measures=tuple(_measures(found)),
        films=tuple(_films(found, camera, num_pictures=num_pictures, height=height, num_stages=num_stages)),
    )


def _view(found: Estimation) -> SetView:
    bars = (
        stacked(
            f"truly stage {stage.number + 1}",
            {f"in stage {number + 1}": count for number, count in enumerate(stage.predicted)},
            {
                f"in stage {number + 1}": "accent" if number == stage.number else "none"
                for number in range(len(stage.predicted))
            },
        )
        for stage in found.stages
    )
    return SetView(
        found=found,
        calibration=plots.calibration(
            found.annotated,
            found.predicted,
            held_out=found.unseen,
            name=f"progress-{found.key}",
            axes=("annotated progress", "predicted progress"),
        ),
        stage_bars=tuple(bars),
    )


def _measures(found: Findings) -> list[MeasureRow]:
    rows = []
    for key, (title, meaning) in MEASURES.items():
        by_set = tuple(next((a for a in one.along if a.key == key), None) for one in found.estimations)
        scale, digits = (1000.0, 1) if key == "roughness" else (1.0, 2)
        if any(by_set):
            rows.append(MeasureRow(title=title, meaning=meaning, by_set=by_set, scale=scale, digits=digits))
    return rows


def _films(found: Findings, camera: str, *, num_pictures: int, height: int, num_stages: int) -> list[FilmView]:
    """Draw the first set's examples: a success and a failure where it has both, chosen as in the rest of the page."""
    first, estimator = found.estimations[0], found.estimator
    assert estimator is not None
    data, facts = (found.dataset, found.frames)
    if first.key == "labelled" and found.labelled:
        data, facts = (found.labelled.dataset, found.labelled.frames)
    target = annotated_progress(estimator, data)
    assert target is not None
    seen_by = film.choose_camera(data, camera)
    correcting = schema.CONTROL_MODES.index("correcting")
    views: list[FilmView] = []
    for example in film.pick_examples(facts, first.numbers):
        if example.episode not in first.numbers or len(views) == NUM_FILMS:
            continue
        rows = facts.rows(example.episode)
        size = {"num_pictures": num_pictures, "height": height}
        pictures = film.film_strip(data, facts, example.episode, seen_by, **size) if seen_by else []
        curves = progress_plots.progress_curves(
            name=f"progress-{example.kind}",
            title=f"{example.title}: labelled episode {example.episode}",
            predicted=facts.value[rows],
            annotated=target[rows],
            num_stages=num_stages,
            is_human=facts.control_mode[rows] == correcting,
        )
        views.append(FilmView(example=example, length=rows.stop - rows.start, pictures=tuple(pictures), curves=curves))
    return views
