"""Write the run card: one self-contained HTML page, and its numbers as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from pydantic import Field

from robolift import storage
from robolift.errors import DataError, UsageError
from robolift.logging import get_logger
from robolift.manifest import Output
from robolift.schema import Kind
from robolift.stages.show import OUTCOMES_FILE
from robolift.stages.stage import Input, Inputs, StageConfig

INPUTS = {
    "dataset": Input(kind=Kind.DATASET),
    "targets": Input(kind=Kind.TARGETS, optional=True),
    "values": Input(kind=Kind.VALUES),
    "labels": Input(kind=Kind.LABELS),
    "evaluations": Input(kind=Kind.EVALUATION, optional=True, many=True),
    "checkpoint": Input(kind=Kind.VALUE_CHECKPOINT, optional=True),
    "previous": Input(kind=Kind.REPORT, optional=True),
    "labelled": Input(kind=Kind.DATASET, optional=True),
    "labelled_values": Input(kind=Kind.VALUES, optional=True),
    "labelled_labels": Input(kind=Kind.LABELS, optional=True),
}
OUTPUT = Kind.REPORT

LABELLED = ("labelled", "labelled_values", "labelled_labels")
REPORT_FILE = "report.html"
SUMMARY_FILE = "summary.json"


class Config(StageConfig):
    """What the page shows besides the numbers."""

    title: str = Field(default="Run card", min_length=1)
    """Name of the run, small, above the headline."""
    camera: str = ""
    """Camera of the film strips; empty: the dataset's first by name."""
    num_pictures: int = Field(default=10, ge=4, le=24)
    """Frames in a film strip."""
    picture_height: int = Field(default=112, ge=32, le=360)
    """Height of a film strip's frames in pixels, at most the camera's own."""
    num_task_stages: int = Field(default=1, ge=1, le=64)
    """Equal parts of progress by which a progress estimator's stage accuracy is measured; 1: it is not."""
    max_size_bytes: int = Field(default=2_000_000, ge=100_000)
    """A larger page is refused: it is shown inside the pipeline's web interface."""


def run(config: Config, inputs: Inputs, output: Output) -> Mapping[str, int]:
    """Write ``report.html``, ``summary.json`` and, where episodes of both outcomes are known, ``outcomes.json``.

    ``labelled`` is the annotated dataset that a progress estimator learned from, with the estimator's own values and
    the labels made from the annotation.

    Raises:
        DataError: If inputs do not belong together, lack what their kind must have, or the page is too large.
        UsageError: If the camera is not in the dataset, or only some of the labelled inputs were given.
    """
    given = [name for name in LABELLED if inputs.get(name)]
    if len(given) not in (0, len(LABELLED)):
        raise UsageError(f"write_report got {', '.join(given)}; give {', '.join(LABELLED)} together, or none of them")

    # matplotlib and jinja2 are heavy; `--help` and `--dry-run` need neither.
    from robolift.reports import findings, outcomes  # noqa: PLC0415
    from robolift.reports.page import run_card  # noqa: PLC0415

    sources = findings.Sources(
        dataset=inputs.one("dataset"),
        targets=inputs.get_one("targets"),
        values=inputs.one("values"),
        labels=inputs.one("labels"),
        evaluations=inputs.get("evaluations", []),
        checkpoint=inputs.get_one("checkpoint"),
        previous=inputs.get_one("previous"),
        **{name: inputs.get_one(name) for name in LABELLED},
    )
    look = run_card.Look(
        title=config.title,
        camera=config.camera,
        num_pictures=config.num_pictures,
        picture_height=config.picture_height,
        num_task_stages=config.num_task_stages,
    )
    found = findings.find(sources, num_stages=config.num_task_stages)
    page = run_card.build_page(sources, found, look, output.plan).encode()
    if len(page) > config.max_size_bytes:
        raise DataError(
            f"the page is {len(page)} bytes",
            where=REPORT_FILE,
            expected=f"at most max_size_bytes = {config.max_size_bytes}",
            mend="lower num_pictures or picture_height",
        )
    storage.write_bytes(str(output.path / REPORT_FILE), page)
    summary = findings.summarize(found, findings.tell(found))
    output.write_json(SUMMARY_FILE, summary)
    if curve := outcomes.outcome_curve(found.frames, found.held_out):
        output.write_json(OUTCOMES_FILE, {"categories": outcomes.CATEGORIES, **asdict(curve)})
    for row in found.rows:
        output.metrics[f"success_rate/{row.key}"] = row.rate.estimate
    if found.quality:
        output.metrics["value_spearman"] = found.quality.spearman
    for one in found.estimations:
        output.metrics[f"estimator_mse/{one.key}"] = one.error
        output.metrics[f"estimator_constant_mse/{one.key}"] = one.constant
    output.metrics["positive_share"] = found.label_facts.positive_share
    get_logger("write_report").info("told", headline=summary["headline"], detail=summary["detail"])
    return {"episodes": found.frames.num_episodes, "frames": found.frames.num_frames, "policies": len(found.rows)}
