"""Measure what reward labels are worth before anything is trained on them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import Field

from robolift import storage
from robolift.data.dataset import Dataset
from robolift.labeling.returns import Float64Array
from robolift.logging import get_logger
from robolift.manifest import Manifest, Output
from robolift.schema import Kind
from robolift.stages.quality_gate import QUALITY_FILE
from robolift.stages.quality_measures import Labels, Reading, measure
from robolift.stages.reward_columns import numbers, open_rewards, spoken
from robolift.stages.show import SECTION_FILE
from robolift.stages.stage import Input, Inputs, StageConfig

INPUTS = {
    "dataset": Input(kind=Kind.DATASET),
    "automatic": Input(kind=Kind.REWARDS),
    "reviews": Input(kind=Kind.REWARDS),
}
OUTPUT = Kind.QUALITY
REVIEWS_FILE = "reviews.json"
AGREEMENTS = {
    "tri": "people's -1, 0, 1 of the same frames",
    "outcome": "people's outcomes of the same episodes",
    "preference": "people's choices of the same pairs",
}
LIKE_A_CLOCK = (0.9, 0.6)
"""Order from which, and success AUROC up to which, labels look like a clock's."""
PER_TASK = (
    "coverage",
    "coverage_progress",
    "value_order_correlation",
    "constant_share",
    "success_auroc",
    "failure_gap",
    "disagreement",
)
MAX_TASKS = 20
"""The page shows so many tasks; quality.json has all."""


class Config(StageConfig):
    """What labels must reach to pass."""

    min_coverage: float = Field(default=0.0, ge=0, le=1)
    """Smallest share of frames whose progress is known, by the model or people's task stages; where the model says
    nothing of any frame before an episode's last, smallest share of frames of which anybody said anything."""
    min_success_auroc: float = Field(default=0.0, ge=0, le=1)
    """Smallest probability that a success's end scores above a failure's; not asked where an outcome is missing."""
    min_failure_gap: float = Field(default=-1.0, ge=-1, le=1)
    """Smallest difference between the mean final progress of successes and of failures."""
    max_disagreement: float = Field(default=1.0, ge=0, le=1)
    """Largest share of people's frames that the model's progress contradicts."""
    min_agreement: float = Field(default=-1.0, ge=-1, le=1)
    """Smallest Krippendorff's alpha between people; not asked where nobody labelled twice."""
    max_constant: float = Field(default=0.5, ge=0, le=1)
    """Largest share of episodes whose progress never changes."""

    def thresholds(self, *, tells_progress: bool) -> dict[str, tuple[str, float]]:
        """Return for each measure that is asked for the direction and the limit."""
        return {
            "coverage_progress" if tells_progress else "coverage": (">=", self.min_coverage),
            "success_auroc": (">=", self.min_success_auroc),
            "failure_gap": (">=", self.min_failure_gap),
            "disagreement": ("<=", self.max_disagreement),
            "constant_share": ("<=", self.max_constant),
            **{f"agreement_{name}": (">=", self.min_agreement) for name in AGREEMENTS},
        }


def run(config: Config, inputs: Inputs, output: Output) -> Mapping[str, int]:
    """Write ``quality.json``: each measure beside what a clock (t / T) reaches, and whether the labels pass."""
    dataset = Dataset.open(inputs.one("dataset"))
    labels = read_labels(inputs, dataset)
    calibrated = inputs.one("automatic").config.get("calibration") == "isotonic"
    found, clocks = measure(labels), measure(labels.of_clock())
    found |= agreement(inputs.one("reviews"))
    asked = config.thresholds(tells_progress=labels.tells_progress)
    measures = {
        name: judge(name, reading, clocks.get(name), asked.get(name), calibrated=calibrated)
        for name, reading in found.items()
    }
    quality: dict[str, Any] = {
        "measures": measures,
        "passed": all(one["passed"] is not False for one in measures.values()),
        "alarms": alarms(measures),
        "per_task": per_task(labels, np.array(dataset.episodes.column("task").to_pylist(), dtype=str)),
    }
    output.write_json(QUALITY_FILE, quality)
    (output.path / SECTION_FILE).write_text(describe(quality), encoding="utf-8")
    output.metrics.update({name: one["value"] for name, one in measures.items()})
    output.metrics["clock"] = {name: one["clock"] for name, one in measures.items()}
    for alarm in quality["alarms"]:
        get_logger("label_quality").warning(alarm)
    failed = [name for name, one in measures.items() if one["passed"] is False]
    return {
        "episodes": dataset.num_episodes,
        "frames": dataset.num_frames,
        "passed": int(quality["passed"]),
        "failed_measures": len(failed),
        "alarms": len(quality["alarms"]),
    }


def read_labels(inputs: Inputs, dataset: Dataset) -> Labels:
    """Read what the model and people say, and how episodes ended.

    Raises:
        DataError: If a table is of another dataset.
    """
    automatic, reviews = (
        open_rewards(inputs.one(name), dataset, inputs.one("dataset"), name) for name in ("automatic", "reviews")
    )
    ends = dataset.starts[1:] - 1
    judged = numbers(reviews, "success_prob")[ends]
    outcome = np.array(dataset.episodes.column("outcome").to_pylist(), dtype=str)
    recorded = np.select([outcome == "success", outcome == "failure"], [1.0, 0.0], np.nan)
    by_people: Float64Array = np.where(np.isnan(judged), np.nan, (judged >= 0.5).astype(np.float64))
    return Labels(
        starts=dataset.starts,
        succeeded=np.where(np.isnan(by_people), recorded, by_people),
        progress=numbers(automatic, "progress"),
        success_prob=numbers(automatic, "success_prob"),
        asked=automatic.column("anchor").to_numpy(),
        by_model=spoken(automatic),
        by_people=spoken(reviews),
        tri=numbers(reviews, "tri"),
        staged=numbers(reviews, "progress"),
    )


def agreement(reviews: Manifest) -> dict[str, Reading]:
    """Return Krippendorff's alpha between people as their reviews have it, NaN where nothing was labelled twice."""
    where = reviews.file(REVIEWS_FILE)
    known = dict(storage.read_json(where).get("agreement") or {}) if storage.exists(where) else {}
    found = {}
    for name, what in AGREEMENTS.items():
        alpha = known.get(name)
        about = f"Krippendorff's alpha of {what}" if alpha is not None else "nothing was labelled by two people"
        found[f"agreement_{name}"] = Reading(value=math.nan if alpha is None else float(alpha), about=about)
    return found


def judge(
    name: str, reading: Reading, clock: Reading | None, asked: tuple[str, float] | None, *, calibrated: bool
) -> dict[str, Any]:
    """Return a measure as quality.json has it; ``passed`` is null where it is not asked for or can't be told."""
    direction, threshold = asked or ("", None)
    passed = None
    if threshold is not None and not math.isnan(reading.value):
        passed = reading.value >= threshold if direction == ">=" else reading.value <= threshold
    about = reading.about
    if calibrated and name == "calibration_error":
        about += "; the scores were calibrated on these very outcomes where they are recorded, so this flatters"
    return {
        "value": reading.value,
        "clock": clock.value if clock else None,
        "threshold": threshold,
        "passed": passed,
        "about": about,
    }


def alarms(measures: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return what should worry a reader, in sentences."""
    constant, order, auroc = (
        measures[name]["value"] for name in ("constant_share", "value_order_correlation", "success_auroc")
    )
    found = []
    if measures["constant_share"]["passed"] is False:
        found.append(f"progress never changes in {constant:.0%} of the episodes: a reward made from it is 0 there")
    if auroc < 0.5:
        found.append(f"failures score above successes (success AUROC {auroc:.3f}): the labels point the wrong way")
    elif order >= LIKE_A_CLOCK[0] and auroc <= LIKE_A_CLOCK[1]:
        found.append(
            f"the labels look like a clock's: their order is {order:.3f}, and they hardly tell successes from failures "
            f"(success AUROC {auroc:.3f})"
        )
    if math.isnan(auroc) and not math.isnan(order):
        found.append("nothing tells these labels from a clock's: label episodes of both outcomes to find out")
    return found


def per_task(labels: Labels, tasks: np.ndarray) -> dict[str, dict[str, Any]]:
    """Return the measures of each task, with the number of its episodes."""
    found = {}
    for task in np.unique(tasks).tolist():
        own = labels.of(np.flatnonzero(tasks == task))
        ours, clocks = measure(own), measure(own.of_clock())
        found[task] = {
            "episodes": len(own.succeeded),
            **{name: {"value": ours[name].value, "clock": clocks[name].value} for name in PER_TASK},
        }
    return found


def describe(quality: Mapping[str, Any]) -> str:
    """Return the part of the step's page that says what the labels are worth."""
    lines = [f"## Labels {'pass' if quality['passed'] else 'do not pass'}", ""]
    lines += [*(f"- **{alarm}**" for alarm in quality["alarms"]), *([""] if quality["alarms"] else [])]
    lines += ["| measure | labels | a clock | asked | | |", "|---|---|---|---|---|---|"]
    for name, one in quality["measures"].items():
        verdict = {True: "passed", False: "FAILED", None: ""}[one["passed"]]
        cells = [name, *(_number(one[key]) for key in ("value", "clock", "threshold")), verdict, one["about"]]
        lines.append(f"| {' | '.join(cells)} |")
    shown = list(quality["per_task"].items())[:MAX_TASKS]
    lines += ["", f"By task ({len(shown)} of {len(quality['per_task'])}):", ""]
    lines += [f"| task | episodes | {' | '.join(PER_TASK)} |", "|---" * (len(PER_TASK) + 2) + "|"]
    for task, own in shown:
        cells = [task.replace("|", "\\|"), str(own["episodes"]), *(_number(own[name]["value"]) for name in PER_TASK)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _number(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.3f}"
