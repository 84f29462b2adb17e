"""Measure states and actions for normalisation: mean, standard deviation, 1 % and 99 % quantiles, from tables alone.

Every number is exact, however long the dataset, and the same in whatever order and files the episodes lie. No video is
opened. The result is openpi's ``norm_stats.json``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np

from robolift.data.dataset import Dataset
from robolift.data.exact_statistics import ExactStatistics, measure
from robolift.errors import DataError
from robolift.logging import get_logger, progress
from robolift.manifest import Output
from robolift.policy.norm_stats import (
    COLUMNS_FILE,
    NORM_STATS_FILE,
    QUANTILES,
    Column,
    Columns,
    NormStats,
    VectorStats,
    join,
)
from robolift.policy.normalize import Method
from robolift.schema import Kind
from robolift.stages.stage import Input, Inputs, StageConfig

INPUTS = {"dataset": Input(kind=Kind.DATASET)}
OUTPUT = Kind.NORM_STATS


class Config(StageConfig):
    """Which columns are measured, and in which frames."""

    state_keys: tuple[str, ...] = ("observation.state",)
    """State columns, joined in this order; the same as train_policy's. Empty: the action alone is measured."""
    paused: Literal["exclude", "include"] = "exclude"
    """Frames in which the robot was held still. train_policy learns from none of them; openpi counts every frame."""


def run(config: Config, inputs: Inputs, output: Output) -> dict[str, int]:
    """Write norm_stats.json, columns.json and metrics.json; a dimension that never changes has a deviation of 0."""
    import pyarrow.compute as pc  # noqa: PLC0415  (not for --describe)

    dataset = Dataset.open(inputs.one("dataset"))
    columns = Columns.of(dataset, config.state_keys)
    kept = np.ones(dataset.num_frames, bool)
    if config.paused == "exclude":
        with dataset.frame_blocks(["control_mode"]) as frames:
            for first, rows in frames.blocks():
                kept[first : first + rows.num_rows] = pc.not_equal(rows.column("control_mode"), "paused")
    if not kept.any():
        raise DataError(
            "there is no frame to measure" if not len(kept) else "every frame is paused",
            where=dataset.uri,
            expected="frames in which something acted",
            mend="add episodes, or set paused: include",
        )
    parts = {"state": columns.state, "actions": columns.actions}
    found = {part: [measure_column(dataset, column, kept) for column in parts[part]] for part in parts}
    stats = NormStats(state=VectorStats.joined(found["state"]), actions=VectorStats.joined(found["actions"]))
    output.write_json(NORM_STATS_FILE, stats.to_dict())
    output.write_json(COLUMNS_FILE, columns.to_dict())
    output.metrics["paused_frames_left_out"] = int((~kept).sum())
    for part in parts:
        output.metrics[part] = summarize(getattr(stats, part), found[part])
        for method, dimensions in output.metrics[part]["unscaled"].items():
            if dimensions:
                get_logger("compute_norm_stats").warning(
                    "dimensions without a spread are shifted and not scaled",
                    part=part,
                    normalization=method,
                    dimensions=dimensions,
                )
    measured = np.logical_or.reduceat(kept, dataset.starts[:-1])
    return {"episodes": int(measured.sum()), "frames": int(kept.sum())}


def measure_column(dataset: Dataset, column: Column, kept: np.ndarray) -> ExactStatistics:
    """Measure one column at :data:`QUANTILES`; of the dataset one episode is in memory at a time.

    Args:
        dataset: The episodes.
        column: Which column.
        kept: (F,) bool, frames to measure.

    Raises:
        DataError: At the first kept number that is NaN or infinite.
    """

    def read() -> Iterator[np.ndarray]:
        for episode in range(dataset.num_episodes):
            rows = np.flatnonzero(kept[dataset.starts[episode] : dataset.starts[episode + 1]])
            if len(rows):
                values = np.asarray(dataset.column(column.name, [episode]), np.float32)
                yield _check(values.reshape(len(values), column.dim)[rows], column.name, episode, rows)

    def shown() -> Iterator[np.ndarray]:
        return progress(read(), total=dataset.num_episodes, what=f"measure {column.name}", unit="episode")

    return measure(shown, QUANTILES)


def _check(values: np.ndarray, name: str, episode: int, frames: np.ndarray) -> np.ndarray:
    """Return ``values``, (T, D), if they are finite."""
    wrong = ~np.isfinite(values)
    if wrong.any():
        row, dimension = (int(index) for index in np.argwhere(wrong)[0])
        raise DataError(
            f"column {name} is {values[row, dimension]}",
            where=f"episode {episode}, frame {frames[row]}, dimension {dimension}",
            expected="a number in each dimension",
            mend="repair or drop the episode",
        )
    return values


def summarize(stats: VectorStats, parts: list[ExactStatistics]) -> dict[str, Any]:
    """Return what a person should look at, one number a dimension, and by method the dimensions without a spread.

    ``farthest`` is the largest distance from 0 after quantile normalisation, where 98 % of the numbers lie within 1: a
    large one is a glitch of the recording, or a dimension that hardly moves.
    """
    low, high = (join([getattr(part, name) for part in parts]) for name in ("minimum", "maximum"))
    methods: tuple[Method, ...] = ("mean_std", "quantile")
    ends = np.stack([low, high])
    return {
        "dimensions": len(low),
        "minimum": low,
        "maximum": high,
        "farthest": np.abs(stats.normalizer("quantile").apply(ends)).max(axis=0),
        "unscaled": {method: stats.unscaled(method) for method in methods},
    }
