"""Where a pipeline's design bends: what a forecast runs into, and what to do about it."""

from __future__ import annotations

import math

from robolift.planner.forecast import HOUR, Assumptions, Forecast, StageForecast
from robolift.planner.recordings import Recordings
from robolift.planner.steps import MOST_SHARDS
from robolift.planner.workload import WINDOW_BYTES

GIB = 1 << 30
MOST_LISTED_BYTES = GIB
LARGE_BYTES = 1 << 40
MOST_READS = 3
"""Times that a stage may fetch all that was recorded before it is worth a word."""


def limits(found: Forecast, assumed: Assumptions) -> list[str]:
    """Return what is too much for a pod, a shard or a step, in words, with a remedy each."""
    said = [text for stage in found.stages for text in _of_stage(stage, assumed, found.recordings)]
    files = found.recordings.data_files + found.recordings.video_files
    if found.listed_bytes > MOST_LISTED_BYTES:
        said.append(
            f"import_dataset lists {files:.3g} files in one JSON document of {found.listed_bytes / GIB:.3g} GiB, which "
            "each stage reads that opens the source: pack the dataset as v3.0, or import it in parts"
        )
    for name, training in (("train_value", assumed.value), ("train_policy", assumed.policy)):
        rows = training.steps * training.batch
        if rows < found.recordings.frames:
            said.append(
                f"{name} looks at {rows:.3g} of {found.recordings.frames:.3g} frames: a sample of the episodes is all "
                "that it sees"
            )
    return said


def _of_stage(stage: StageForecast, assumed: Assumptions, recordings: Recordings) -> list[str]:
    name, step = stage.step.stage, stage.step
    said = _of_shards(stage, assumed, recordings) if step.kind == "shards" else []
    if stage.memory_bytes > step.memory_gib * GIB:
        said.append(
            f"{name} needs {stage.memory_bytes / GIB:.3g} GiB in one pod that gets {step.memory_gib}: give its size "
            "more in the placement file, or run the pipeline on parts of the dataset"
        )
    one_s = stage.wall_s / stage.runs
    if step.kind in ("task", "packing") and one_s > step.hours * HOUR:
        said.append(
            f"{name} takes {one_s / HOUR:.3g} h in one pod and is ended after {step.hours}: run the pipeline on parts "
            "of the dataset"
        )
    if stage.scratch_bytes > LARGE_BYTES:
        size = f"{stage.scratch_bytes / 1e12:.3g} TB"
        said.append(
            f"{name} keeps {size} of pictures on its pod's disk before it uploads them: let it pack `format: jpeg`, a "
            "twelfth, or fewer cameras, or run the pipeline on parts of the dataset"
            if step.kind == "packing"
            else f"{name} decodes all pictures to {size} of its pod's disk before it trains: train on a sample of the "
            "episodes, or on fewer cameras"
        )
    recorded = stage.runs * (recordings.data_bytes + recordings.video_bytes)
    if stage.read_bytes > max(LARGE_BYTES, MOST_READS * recorded):
        said.append(
            f"{name} fetches {stage.read_bytes / 1e12:.3g} TB of {recorded / 1e12:.3g} TB that were recorded: the "
            f"store's client reads {WINDOW_BYTES >> 20} MiB ahead wherever it is sent to, so write videos into files "
            "of about that size"
        )
    return said


def _of_shards(stage: StageForecast, assumed: Assumptions, recordings: Recordings) -> list[str]:
    """Return what to do about shards that take longer than was meant: more of them, while there may be."""
    waves = stage.runs * -(-stage.shards // assumed.parallelism)
    one_s, meant_s = stage.wall_s / waves, 60 * assumed.shard_minutes
    most = min(MOST_SHARDS, int(recordings.episodes))
    told = assumed.num_shards is not None and stage.shards < most
    if one_s <= meant_s or not (told or stage.shards == MOST_SHARDS):
        return []
    longer = (
        f"takes {one_s / HOUR:.3g} h where {assumed.shard_minutes:g} min were meant, and a killed one loses as much"
    )
    if told:
        wanted = min(most, math.ceil(stage.shards * one_s / meant_s))
        return [f"{stage.step.stage}: each of {stage.shards} shards {longer}: set num_shards to {wanted}"]
    return [
        f"{stage.step.stage}: there are at most {MOST_SHARDS} shards, so each {longer}: run the pipeline on "
        f"{-(-one_s // meant_s):.0f} parts of the dataset"
    ]
