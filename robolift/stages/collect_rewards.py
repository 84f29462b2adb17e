"""Put a labeller's shards together: progress and success of every frame, calibrated if asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import Field

from robolift import schema, storage
from robolift.annotators.labeller import NOBODY
from robolift.annotators.planning import PLAN_FILE
from robolift.annotators.shard import ANCHORS_FILE, ERRORS_FILE
from robolift.data.dataset import Dataset
from robolift.errors import DataError, UsageError
from robolift.labeling.isotonic import Isotonic, fit_isotonic
from robolift.labeling.progress import anchor_rows, interpolate_anchors
from robolift.labeling.returns import BoolArray, Float64Array, IntArray
from robolift.manifest import Manifest, Output
from robolift.schema import Kind
from robolift.stages.reward_anchors import Answers, check_shards, collect
from robolift.stages.reward_columns import source_code, write_rewards
from robolift.stages.shards import input_identity as input_identity
from robolift.stages.stage import Input, Inputs, StageConfig

INPUTS = {
    "shards": Input(kind=Kind.REWARD_SHARD, many=True),
    "plan": Input(kind=Kind.LABEL_PLAN),
    "dataset": Input(kind=Kind.DATASET),
}
OUTPUT = Kind.REWARDS
CALIBRATED = ("logprob", "rubric")
MAX_NAMED = 10
SMALLEST = 1e-12
"""No probability is taken for less, so that each has a logarithm."""


class Config(StageConfig):
    """How much must be labelled, and how answers become progress."""

    min_coverage: float = Field(default=1.0, ge=0, le=1)
    """Smallest share of the episodes that must have labels."""
    calibration: Literal["none", "isotonic"] = "none"
    """`isotonic`, for `logprob` and `rubric`: rising maps from the model's score, to success_prob fitted on the ends of
    episodes of known outcome, to progress fitted on the beginnings of all episodes too."""
    min_calibration_episodes: int = Field(default=10, ge=2)
    """Episodes of each outcome that `calibration` needs."""


def run(config: Config, inputs: Inputs, output: Output) -> Mapping[str, int]:
    """Write ``rewards.parquet`` (a row for every frame), ``anchors.parquet`` and ``errors.json``.

    With calibration also ``calibration.json``, the maps from score to progress and to success.
    """
    shards, plan = inputs["shards"], inputs.one("plan")
    check_shards(shards, plan, inputs.one("dataset"))
    dataset = Dataset.open(inputs.one("dataset"))
    protocol = str(storage.read_json(plan.file(PLAN_FILE))["labeller"]["protocol"])
    answers = collect(shards, dataset, protocol=protocol)
    if protocol != NOBODY:
        check_coverage(answers, config.min_coverage)
    calibration = calibrate(config, dataset, answers, protocol) if config.calibration == "isotonic" else None
    episode, frame, _ = answers.used()
    anchor = np.zeros(dataset.num_frames, dtype=bool)
    anchor[anchor_rows(dataset.starts, episode, frame)] = answers.asked
    known = spread(answers, dataset.starts, protocol, calibration)
    labelled = np.repeat(answers.labelled, np.diff(dataset.starts))
    write_rewards(
        output, dataset, source=np.where(labelled, source_code("vlm"), source_code("none")), anchor=anchor, known=known
    )
    schema.write_table(output.path / ANCHORS_FILE, answers.anchors)
    output.write_json(ERRORS_FILE, answers.errors)
    if calibration:
        maps = {"progress": calibration.progress.to_dict(), "success_prob": calibration.success.to_dict()}
        output.write_json("calibration.json", {**maps, "points": calibration.points})
        output.metrics["calibration"] = calibration.points
    output.metrics.update(_measure(answers, shards))
    return {
        "episodes": dataset.num_episodes,
        "frames": dataset.num_frames,
        "labelled": int(answers.labelled.sum()),
        "errors": len(answers.errors),
        "anchors": int(anchor.sum()),
    }


def check_coverage(answers: Answers, min_coverage: float) -> None:
    """Check that enough episodes have labels.

    Raises:
        DataError: Naming the episodes without and why they have none.
    """
    coverage = float(answers.labelled.mean())
    if coverage >= min_coverage:
        return
    named = "; ".join(
        f"{error['episode_index']} ({error['class']}: {error['message']})" for error in answers.errors[:MAX_NAMED]
    )
    classes = ", ".join(f"{number} {name}" for name, number in answers.classes.items())
    raise DataError(
        f"{len(answers.errors)} of {len(answers.labelled)} episodes have no labels ({classes})",
        where=f"episodes {named}{'; ...' if len(answers.errors) > MAX_NAMED else ''}",
        expected=f"labels for a share of at least {min_coverage:g}, found {coverage:.4g}",
        mend="ask again with another prompt, protocol or model; or lower min_coverage and have people label these "
        "episodes. What could not be read is never taken for a label",
    )


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Maps from the model's score, and how many points of each sort there were.

    Attributes:
        progress: To progress, fitted on ends and beginnings: the task is not done where it has not begun.
        success: To the probability that the episode succeeds, fitted on ends alone: beginnings say nothing of how
            episodes end, and counted as failures they would drag it below the share of successes.
        points: Successes, failures and beginnings.
    """

    progress: Isotonic
    success: Isotonic
    points: dict[str, int]


def calibrate(config: Config, dataset: Dataset, answers: Answers, protocol: str) -> Calibration:
    """Fit the maps from score: ends of successes are 1, ends of failures 0 and, for progress, beginnings of all 0.

    The end is the last anchor of an episode, the beginning its first where it has several.

    Raises:
        UsageError: If the protocol has no score that a map could be fitted on.
        DataError: If too few episodes of an outcome have one.
    """
    if protocol not in CALIBRATED:
        raise UsageError(
            f"calibration isotonic is for the scores of {' and '.join(CALIBRATED)}; the plan's protocol is {protocol}: "
            "set calibration to none"
        )
    episode, _, columns = answers.used()
    known = ~np.isnan(columns["score"])
    episode, score = episode[known], columns["score"][known]
    changes = episode[1:] != episode[:-1]
    first, last = np.append(True, changes)[: len(episode)], np.append(changes, True)[: len(episode)]
    outcome = np.array(dataset.episodes.column("outcome").to_pylist(), dtype=str)[episode]
    sorts = {
        "successes": last & (outcome == "success"),
        "failures": last & (outcome == "failure"),
        "beginnings": first & ~last,
    }
    points = {name: int(rows.sum()) for name, rows in sorts.items()}
    if min(points["successes"], points["failures"]) < config.min_calibration_episodes:
        raise DataError(
            f"{points['successes']} successes and {points['failures']} failures have a score at their end",
            where="episodes, column outcome",
            expected=f"{config.min_calibration_episodes} of each (min_calibration_episodes)",
            mend="set calibration to none, record more outcomes, or lower min_calibration_episodes",
        )
    x = np.concatenate([score[rows] for rows in sorts.values()])
    y = np.repeat([1.0, 0.0, 0.0], list(points.values()))
    ends = slice(points["successes"] + points["failures"])
    return Calibration(progress=fit_isotonic(x, y), success=fit_isotonic(x[ends], y[ends]), points=points)


def spread(
    answers: Answers, starts: IntArray, protocol: str, calibration: Calibration | None
) -> dict[str, Float64Array]:
    """Return progress, success_prob and confidence of every frame, (F,) each, NaN where not known.

    Of ``logprob`` the logarithm of progress is interpolated, of the other protocols progress itself. Where the score is
    calibrated, it is interpolated and then mapped, and the score of the last frame gives the success_prob of all. A
    verdict of ``rubric`` on the end alone is no progress of the frames before it.
    """
    episode, frame, columns = answers.used()

    def everywhere(values: Float64Array) -> Float64Array:
        return interpolate_anchors(starts, episode, frame, values)

    known = {name: everywhere(columns[name]) for name in ("success_prob", "confidence")}
    if calibration:
        score = everywhere(columns["score"])
        known["progress"] = calibration.progress.apply(score)
        known["success_prob"] = np.repeat(calibration.success.apply(score[starts[1:] - 1]), np.diff(starts))
    elif protocol == "logprob":
        logarithm = np.log(np.maximum(columns["progress"], SMALLEST))
        known["progress"] = np.exp(everywhere(logarithm))
    else:
        known["progress"] = everywhere(columns["progress"])
    if protocol == "rubric":
        known["progress"] = np.where(_before_verdict(starts, episode, frame), np.nan, known["progress"])
    return known


def _before_verdict(starts: IntArray, episode: IntArray, frame: IntArray) -> BoolArray:
    """Return the frames of episodes with one anchor that are not that anchor, (F,)."""
    lone = np.bincount(episode, minlength=len(starts) - 1) == 1
    before = np.repeat(lone, np.diff(starts))
    before[anchor_rows(starts, episode, frame)] = False
    return before


def _measure(answers: Answers, shards: Sequence[Manifest]) -> dict[str, Any]:
    found: dict[str, Any] = {"coverage": float(answers.labelled.mean()), "errors_by_class": answers.classes}
    for name in ("requests", "input_tokens", "output_tokens"):
        found[name] = sum(shard.counts.get(name, 0) for shard in shards)
    return found
