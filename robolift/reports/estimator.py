"""How good a progress estimator is, on episodes it was not trained on: errors against constants, order, smoothness."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robolift import schema
from robolift.data.dataset import Dataset
from robolift.errors import DataError
from robolift.manifest import Manifest
from robolift.reports import progress
from robolift.reports.frames import FrameFacts
from robolift.reports.intervals import Interval
from robolift.reports.progress import Floats, Integers, Spread, Stage

RELATIVE, SINGLE = "relative", "single"
HEADS = {RELATIVE: "two frames", SINGLE: "one frame"}
DEFAULT_COLUMN = "stage_progress_gt"


@dataclass(frozen=True, kw_only=True)
class Estimator:
    """What a checkpoint says it estimates.

    Attributes:
        head: ``relative`` (two frames: progress between them) or ``single`` (one frame: progress itself).
        column: Column of annotated progress it was trained on.
    """

    head: str
    column: str

    @property
    def is_relative(self) -> bool:
        """Whether its values count from the first frame of the episode."""
        return self.head == RELATIVE


@dataclass(frozen=True, kw_only=True)
class Along:
    """One measure along episodes: of the prediction and, where it makes sense, of the annotation itself."""

    key: str
    predicted: Spread
    annotated: Spread | None


@dataclass(frozen=True, kw_only=True)
class Estimation:
    """What one set of annotated episodes shows; N frames of E episodes.

    Attributes:
        key: ``labelled`` or ``new``.
        unseen: Whether the estimator was trained on none of them.
        numbers: (E,) the episodes in their dataset.
        starts: (E + 1,) their offsets in the arrays below.
        predicted: (N,) predicted value.
        annotated: (N,) what it should be: annotated progress, for two frames since the episode's first.
        error: Mean squared error: of pairs of frames for two frames, of frames for one; task^2.
        constant: The same of the best constant answer on these episodes.
        nominal: The same for uniform progress: 1/6 or 1/12.
        skill: Share of ``constant`` that the estimator removes.
        along: Measures of one episode each.
        stages: Accuracy by task stage, empty without stages.
    """

    key: str
    unseen: bool
    numbers: Integers
    starts: Integers
    predicted: Floats
    annotated: Floats
    error: float
    constant: float
    nominal: float
    skill: Interval | None
    along: tuple[Along, ...]
    stages: tuple[Stage, ...]

    @property
    def name(self) -> str:
        """What to call it in the page."""
        if not self.unseen:
            return f"{self.key.capitalize()} episodes, those of training among them"
        return "Held-out labelled episodes" if self.key == "labelled" else "New episodes"

    @property
    def verdict(self) -> str:
        """``better``, ``worse`` or ``unclear`` than the constant, by whether the interval excludes zero."""
        if self.skill is None or self.skill.low <= 0 <= self.skill.high:
            return "unclear"
        return "better" if self.skill.low > 0 else "worse"

    @property
    def removed(self) -> float | None:
        """The skill in whole per cent, rounded down: what is not perfect is not called 100 %."""
        return math.floor(100 * self.skill.estimate) / 100 if self.skill else None

    @property
    def stage_share(self) -> float | None:
        """Share of all frames whose predicted progress falls in the true task stage."""
        total = sum(stage.frames for stage in self.stages)
        return sum(stage.frames * stage.correct for stage in self.stages) / total if total else None

    def facts(self) -> dict[str, Any]:
        """Return the numbers for summary.json."""
        return {
            "episodes": len(self.numbers),
            "frames": len(self.predicted),
            "unseen": self.unseen,
            "mse": self.error,
            "constant_mse": self.constant,
            "nominal_constant_mse": self.nominal,
            "skill": asdict(self.skill) if self.skill else None,
            "verdict": self.verdict,
            "along_episodes": {
                one.key: {
                    "predicted": asdict(one.predicted),
                    "annotated": asdict(one.annotated) if one.annotated else None,
                }
                for one in self.along
            },
            "stage_accuracy": self.stage_share,
            "stages": [
                {"stage": stage.number, "frames": stage.frames, "correct": stage.correct} for stage in self.stages
            ],
        }


def read_estimator(checkpoint: Manifest | None) -> Estimator | None:
    """Return what a checkpoint estimates; None for a model of returns, and without a checkpoint."""
    if checkpoint is None or checkpoint.config.get("head") not in HEADS:
        return None
    return Estimator(head=checkpoint.config["head"], column=checkpoint.config.get("progress_column") or DEFAULT_COLUMN)


def annotated_progress(estimator: Estimator, dataset: Dataset) -> Floats | None:
    """Return what the values of a dataset should be, (N,), NaN where not annotated; None without the column.

    For two frames that is the progress made since the episode's first frame: all that such values can say.

    Raises:
        DataError: If the column is not one number a frame.
    """
    if estimator.column not in dataset.features:
        return None
    column = np.asarray(dataset.column(estimator.column))
    if column.ndim > 1 and column.shape[1:] == (1,):
        column = column[:, 0]
    if column.ndim != 1 or column.dtype.kind not in "fi":
        raise DataError(
            f"annotated progress {estimator.column} is {column.dtype} of shape {column.shape}",
            where=dataset.uri,
            expected="one number a frame",
            mend="name another progress_column",
        )
    progress_of = column.astype(np.float64)
    if not estimator.is_relative:
        return progress_of
    first = np.asarray(dataset.starts[:-1], dtype=np.int64)
    return progress_of - np.repeat(progress_of[first], np.diff(dataset.starts))


def estimate(
    estimator: Estimator,
    dataset: Dataset,
    frames: FrameFacts,
    numbers: NDArray[np.int64] | None,
    *,
    key: str,
    num_stages: int,
) -> Estimation | None:
    """Measure the values of some episodes against their annotation.

    Args:
        estimator: What the values mean.
        dataset: Where the annotation is.
        frames: The values, for every frame of the dataset.
        numbers: The episodes that the estimator was not trained on; where there are none or none known, all count.
        key: ``labelled`` or ``new``.
        num_stages: Equal parts of progress to measure the accuracy of stages by; fewer than 2: not measured.

    Returns:
        None when no episode is annotated from its first frame to its last.
    """
    target = annotated_progress(estimator, dataset)
    if target is None:
        return None
    unseen = numbers is not None and len(numbers) > 0
    chosen = numbers if numbers is not None and unseen else np.arange(frames.num_episodes)
    chosen = np.asarray([e for e in chosen.tolist() if np.isfinite(target[frames.rows(e)]).all()], dtype=np.int64)
    if not len(chosen):
        return None
    rows = frames.mask(chosen)
    predicted, annotated = frames.value[rows], target[rows]
    starts = np.concatenate([[0], np.cumsum(np.diff(frames.starts)[chosen])]).astype(np.int64)
    if estimator.is_relative:
        errors = progress.pair_errors(predicted - annotated, starts)
        baseline = progress.pair_errors(annotated, starts)
    else:
        errors = progress.frame_errors(predicted - annotated, starts)
        baseline = progress.frame_errors(annotated - annotated.mean(), starts)
    error, constant = progress.pooled(errors, starts), progress.pooled(baseline, starts)
    if error is None or constant is None:
        return None
    raw = np.asarray(dataset.column(estimator.column), dtype=np.float64).reshape(-1)[rows]
    return Estimation(
        key=key,
        unseen=unseen,
        numbers=chosen,
        starts=starts,
        predicted=predicted,
        annotated=annotated,
        error=error,
        constant=constant,
        nominal=progress.PAIR_BASELINE if estimator.is_relative else progress.FRAME_BASELINE,
        skill=progress.skill(errors, baseline, starts),
        along=tuple(_along(predicted, annotated, starts, frames.outcome[frames.starts[chosen]])),
        stages=tuple(progress.stage_accuracy(predicted, raw, num_stages)) if num_stages > 1 else (),
    )


def _along(predicted: Floats, annotated: Floats, starts: Integers, outcome: Integers) -> Iterable[Along]:
    orders = progress.value_order(predicted, starts), progress.value_order(annotated, starts)
    found: list[tuple[str, Floats, Floats | None]] = [
        ("rank_agreement", progress.rank_agreement(predicted, annotated, starts), None)
    ]
    for code, name in enumerate(schema.OUTCOMES):
        ours, theirs = (np.where(outcome == code, order, np.nan) for order in orders)
        found.append((f"value_order_{name}", ours, theirs))
    found.append(("roughness", progress.roughness(predicted, starts), progress.roughness(annotated, starts)))
    for key, mine, true in found:
        if (measured := progress.spread(mine)) is not None:
            yield Along(key=key, predicted=measured, annotated=None if true is None else progress.spread(true))
