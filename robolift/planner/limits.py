"""Where a pipeline's design bends: what a forecast runs into, and what to do about it."""

from __future__ import annotations

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
    name, step, said = stage.step.stage, stage.step, []
    if step.kind == "shards" and stage.shards == MOST_SHARDS:
        waves = -(-stage.shards // assumed.parallelism)
        one_s = stage.wall_s / waves
        if one_s > 60 * assumed.shard_minutes:
            said.append(
                f"{name}: there are at most {MOST_SHARDS} shards, so each takes {one_s / HOUR:.3g} h where "
                f"{assumed.shard_minutes:g} min were meant, and a killed one loses as much: run the pipeline on "
                f"{-(-one_s // (60 * assumed.shard_minutes)):.0f} parts of the dataset"
            )
    if stage.memory_bytes > step.memory_gib * GIB:
        said.append(
            f"{name} needs {stage.memory_bytes / GIB:.3g} GiB in one pod that gets {step.memory_gib}: give its size "
            "more in the placement file, or run the pipeline on parts of the dataset"
        )
    if step.kind == "task" and stage.wall_s > step.hours * HOUR:
        said.append(
            f"{name} takes {stage.wall_s / HOUR:.3g} h in one process and is ended after {step.hours}: run the "
            "pipeline on parts of the dataset"
        )
    if stage.scratch_bytes > LARGE_BYTES:
        said.append(
            f"{name} decodes all pictures to {stage.scratch_bytes / 1e12:.3g} TB of its pod's disk before it trains: "
            "train on a sample of the episodes, or on fewer cameras"
        )
    recorded = recordings.data_bytes + recordings.video_bytes
    if stage.read_bytes > max(LARGE_BYTES, MOST_READS * recorded):
        said.append(
            f"{name} fetches {stage.read_bytes / 1e12:.3g} TB of {recorded / 1e12:.3g} TB that were recorded: the "
            f"store's client reads {WINDOW_BYTES >> 20} MiB ahead wherever it is sent to, so write videos into files "
            "of about that size"
        )
    return said
