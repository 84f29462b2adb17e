"""Write the run card: one self-contained HTML page, and its numbers as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

from pydantic import Field

from robolift import storage
from robolift.errors import DataError, UsageError
from robolift.logging import get_logger
from robolift.manifest import Output
from robolift.memory import keep_freed_blocks
from robolift.schema import Kind
from robolift.stages.show import OUTCOMES_FILE
from robolift.stages.stage import Input, Inputs, StageConfig

if TYPE_CHECKING:
    from robolift.reports.page import run_card

INPUTS = {
    "dataset": Input(kind=Kind.DATASET, optional=True),
    "targets": Input(kind=Kind.TARGETS, optional=True),
    "values": Input(kind=Kind.VALUES, optional=True),
    "labels": Input(kind=Kind.LABELS, optional=True),
    "evaluations": Input(kind=Kind.EVALUATION, optional=True, many=True),
    "checkpoint": Input(kind=Kind.VALUE_CHECKPOINT, optional=True),
    "previous": Input(kind=Kind.REPORT, optional=True),
    "labelled": Input(kind=Kind.DATASET, optional=True),
    "labelled_values": Input(kind=Kind.VALUES, optional=True),
    "labelled_labels": Input(kind=Kind.LABELS, optional=True),
    "rewards": Input(kind=Kind.REWARDS, optional=True),
    "plan": Input(kind=Kind.LABEL_PLAN, optional=True),
    "automatic": Input(kind=Kind.REWARDS, optional=True),
    "reviews": Input(kind=Kind.REWARDS, optional=True),
    "quality": Input(kind=Kind.QUALITY, optional=True),
    "clips": Input(kind=Kind.CLIPS, optional=True),
    "scores": Input(kind=Kind.SCORES, optional=True),
    "validation": Input(kind=Kind.VALIDATION, optional=True),
    "model": Input(kind=Kind.REWARD_MODEL, optional=True),
    "preferences": Input(kind=Kind.PREFERENCES, optional=True),
    "features": Input(kind=Kind.FEATURES, optional=True),
    "pairs": Input(kind=Kind.PAIRS, optional=True),
}
OUTPUT = Kind.REPORT

ESTIMATED = ("dataset", "values", "labels")
REWARDED = ("rewards", "plan", "automatic", "reviews", "quality")
FILMED = ("clips", "scores", "validation", "model", "preferences", "features", "pairs")
LABELLED = ("labelled", "labelled_values", "labelled_labels")
REPORT_FILE = "report.html"
SUMMARY_FILE = "summary.json"


class Config(StageConfig):
    """What the page shows besides the numbers."""

    title: str = Field(default="Run card", min_length=1)
    """Name of the run, small, above the headline."""
    camera: str = ""
    """Camera of the film strips; empty: the first that a labelling model saw, else the dataset's first by name."""
    num_pictures: int = Field(default=10, ge=4, le=24)
    """Frames in a film strip, or in a moving clip."""
    picture_height: int = Field(default=112, ge=32, le=360)
    """Height of a film strip's frames in pixels, at most the camera's own."""
    num_task_stages: int = Field(default=1, ge=1, le=64)
    """Equal parts of progress by which a progress estimator's stage accuracy is measured; 1: it is not."""
    input_price: float = Field(default=0.0, ge=0)
    """What a million input tokens of a labelling model cost, in any currency; the page then says what the labels did.
    0: not told."""
    output_price: float = Field(default=0.0, ge=0)
    """The same of output tokens."""
    max_size_bytes: int = Field(default=2_000_000, ge=100_000)
    """A larger page is refused: it is shown inside the pipeline's web interface."""


def run(config: Config, inputs: Inputs, output: Output) -> Mapping[str, int]:
    """Write ``report.html``, ``summary.json`` and, where episodes of both outcomes are known, ``outcomes.json``.

    With ``rewards`` the page says whether reward labels can be trained on; ``plan``, ``automatic``, ``reviews`` and
    ``quality`` are what they were made from. Else it says what policies learned from ``labels`` by ``values``, and
    ``labelled`` is the annotated dataset that a progress estimator learned from, with the estimator's own values and
    the labels made from the annotation. With ``clips`` and their ``scores`` it says whether a reward foretells how
    useful clips are; the other inputs of that page are what the scores were made from, and their ``validation``.

    Raises:
        DataError: If inputs do not belong together, lack what their kind must have, or the page is too large.
        UsageError: If the camera is not in the dataset, or inputs are missing or of both pages.
    """
    keep_freed_blocks()
    if any(name in inputs for name in FILMED):
        _check_filmed(inputs)
        return _write_clip_card(config, inputs, output)
    _check_given(inputs)
    return (_write_reward_card if "rewards" in inputs else _write_run_card)(config, inputs, output)


def _check_filmed(inputs: Inputs) -> None:
    others = [name for name in inputs if name not in FILMED]
    missing = [name for name in ("clips", "scores") if name not in inputs]
    if others or missing:
        raise UsageError(
            f"write_report got {', '.join(inputs)}; the page on a clip reward needs clips and scores, "
            f"and takes besides only {', '.join(FILMED[2:])}"
        )


def _check_given(inputs: Inputs) -> None:
    given = [name for name in LABELLED if inputs.get(name)]
    if len(given) not in (0, len(LABELLED)):
        raise UsageError(f"write_report got {', '.join(given)}; give {', '.join(LABELLED)} together, or none of them")
    others = [name for name in inputs if name not in ("dataset", *REWARDED)]
    if "rewards" in inputs and others:
        raise UsageError(
            f"write_report got rewards and {', '.join(others)}; the page on reward labels takes only dataset, "
            f"{', '.join(REWARDED)}"
        )
    said = [name for name in REWARDED if name in inputs]
    if said and "rewards" not in inputs:
        raise UsageError(f"write_report got {', '.join(said)} without rewards, the labels that its page is about")
    needed = ("dataset",) if "rewards" in inputs else ESTIMATED
    missing = [name for name in needed if name not in inputs]
    if missing:
        kinds = ", ".join(f"{name} (a {INPUTS[name].kind})" for name in missing)
        raise UsageError(
            f"write_report needs input {kinds}; or rewards (a {Kind.REWARDS}) for a page on reward labels; "
            f"or clips (a {Kind.CLIPS}) and scores for one on a clip reward"
        )


def _look(config: Config) -> run_card.Look:
    from robolift.reports.page import run_card  # noqa: PLC0415

    return run_card.Look(
        title=config.title,
        camera=config.camera,
        num_pictures=config.num_pictures,
        picture_height=config.picture_height,
        num_task_stages=config.num_task_stages,
    )


def _write_page(config: Config, output: Output, html: str) -> None:
    page = html.encode()
    if len(page) > config.max_size_bytes:
        raise DataError(
            f"the page is {len(page)} bytes",
            where=REPORT_FILE,
            expected=f"at most max_size_bytes = {config.max_size_bytes}",
            mend="lower num_pictures or picture_height",
        )
    storage.write_bytes(str(output.path / REPORT_FILE), page)


def _write_run_card(config: Config, inputs: Inputs, output: Output) -> Mapping[str, int]:
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
    found = findings.find(sources, num_stages=config.num_task_stages)
    _write_page(config, output, run_card.build_page(sources, found, _look(config), output.plan))
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


def _write_reward_card(config: Config, inputs: Inputs, output: Output) -> Mapping[str, int]:
    from robolift.reports import outcomes, rewards, rewards_findings, rewards_labeller  # noqa: PLC0415
    from robolift.reports.page import reward_card  # noqa: PLC0415

    sources = rewards.RewardSources(
        dataset=inputs.one("dataset"),
        rewards=inputs.one("rewards"),
        **{name: inputs.get_one(name) for name in REWARDED if name != "rewards"},
    )
    prices = rewards_labeller.Prices(input=config.input_price, output=config.output_price)
    found = rewards_findings.find(sources, prices)
    _write_page(config, output, reward_card.build_page(found, _look(config), output.plan))
    summary = rewards_findings.summarize(found)
    output.write_json(SUMMARY_FILE, summary)
    if found.ends and found.ends.curve:
        output.write_json(OUTCOMES_FILE, {"categories": outcomes.CATEGORIES, **asdict(found.ends.curve)})
    output.metrics.update(rewards_findings.metrics(found))
    get_logger("write_report").info("told", headline=summary["headline"], detail=summary["detail"])
    labelled = int(found.facts.merged.is_labelled.sum())
    return {"episodes": found.facts.num_episodes, "frames": found.facts.num_frames, "labelled_frames": labelled}


def _write_clip_card(config: Config, inputs: Inputs, output: Output) -> Mapping[str, int]:
    from robolift.reports import clip_findings, clip_reward  # noqa: PLC0415
    from robolift.reports.page import clip_card  # noqa: PLC0415

    clips = inputs.one("clips")
    sources = clip_reward.ClipSources(
        clips=clips,
        scores=inputs.one("scores"),
        **{name: inputs.get_one(name) for name in FILMED[2:]},
    )
    found = clip_findings.find(sources)
    html = clip_card.build_page(found, clips, output.plan, title=config.title, num_pictures=config.num_pictures)
    _write_page(config, output, html)
    summary = clip_findings.summarize(found)
    output.write_json(SUMMARY_FILE, summary)
    output.metrics.update(clip_findings.metrics(found))
    get_logger("write_report").info("told", headline=summary["headline"], detail=summary["detail"])
    return {"clips": len(found.clips), "subsets": found.validation.num_subsets if found.validation else 0}
