"""A forecast as a table to read, or as a document to compute with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from robolift.planner.forecast import HOUR, Assumptions, Forecast, StageForecast
from robolift.planner.limits import limits
from robolift.planner.recordings import Recordings
from robolift.planner.steps import DATASETS, DEFAULT_SHARDS, PACK
from robolift.planner.workload import DECODERS, OTHER_CODEC

UNMEASURED = "-"
UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
COLUMNS = (
    "stage",
    "runs",
    "shards",
    "pods",
    "CPU h",
    "GPU h",
    "wall h",
    "memory/pod",
    "read",
    "written",
    "GET+HEAD",
    "PUT",
    "LIST",
)


def number(value: float) -> str:
    """Return a number with three digits and a unit's letter: 12.3k."""
    if not value:
        return "0"
    for size, letter in UNITS:
        if value >= size * 0.9995:
            return f"{value / size:.3g}{letter}" if value / size < 999.5 else f"{value / size:.4g}{letter}"
    return f"{value:.3g}"


def rows(found: Forecast) -> list[tuple[str, ...]]:
    """Return the cells of the table: one row a stage, the dearest first, and the sum."""
    whole = found.requests()
    last = (
        "sum",
        "",
        "",
        str(sum(stage.pods for stage in found.stages) + found.other_pods),
        *(number(found.total(name) / HOUR) for name in ("cpu_s", "gpu_s", "wall_s")),
        "",
        *(_measured(found.total(name), "B") for name in ("read_bytes", "written_bytes")),
        *_requests(whole),
    )
    return [*(_row(stage) for stage in found.stages), last]


def _row(stage: StageForecast) -> tuple[str, ...]:
    return (
        stage.step.stage,
        str(stage.runs),
        str(stage.shards),
        str(stage.pods),
        *(number(getattr(stage, name) / HOUR) for name in ("cpu_s", "gpu_s", "wall_s")),
        *(_measured(getattr(stage, name), "B") for name in ("memory_bytes", "read_bytes", "written_bytes")),
        *_requests(stage.requests),
    )


def _requests(asked: dict[str, float]) -> tuple[str, ...]:
    read = asked.get("GET", 0.0) + asked.get("HEAD", 0.0)
    return tuple(_measured(round(value)) for value in (read, asked.get("PUT", 0.0), asked.get("LIST", 0.0)))


def _measured(value: float, unit: str = "") -> str:
    """Return a number that is never 0 where it was measured."""
    return f"{number(value)}{unit}" if value else UNMEASURED


def headline(recordings: Recordings) -> str:
    """Return how much was recorded, in a line."""
    seen = ", ".join(
        f"{camera.height}x{camera.width} {camera.codec or 'of unknown codec'}" for camera in recordings.cameras
    )
    return (
        f"{number(recordings.hours)} h: {number(recordings.frames)} frames at {recordings.fps:g}/s in "
        f"{number(recordings.episodes)} episodes, {len(recordings.cameras)} cameras ({seen or 'none'}); "
        f"{number(recordings.data_files + recordings.video_files)} files, "
        f"{number(recordings.data_bytes + recordings.video_bytes)}B"
    )


def render(found: Forecast, assumed: Assumptions) -> str:
    """Return the table of one forecast, and the limits that it runs into."""
    cells = [COLUMNS, *rows(found)]
    widths = [max(len(row[at]) for row in cells) for at in range(len(COLUMNS))]
    lines = [
        "  ".join(
            cell.ljust(width) if at == 0 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
    return "\n".join([headline(found.recordings), *lines, *(f"! {text}" for text in remarks(found, assumed))])


def remarks(found: Forecast, assumed: Assumptions) -> list[str]:
    """Return what the table leaves out, and the limits that it runs into."""
    left = [f"{', '.join(found.unmeasured)} not measured: left out"] if found.unmeasured else []
    return left + limits(found, assumed)


def markdown(found: Forecast) -> str:
    """Return the table of one forecast as Markdown."""
    lines = [COLUMNS, ("---",) * len(COLUMNS), *rows(found)]
    return "\n".join(f"| {' | '.join(row)} |" for row in lines)


def document(found: Forecast, assumed: Assumptions) -> dict[str, Any]:
    """Return one forecast as JSON: seconds, bytes and numbers."""
    return {
        "recordings": found.recordings.document(),
        "stages": [_document(stage) for stage in found.stages],
        "total": {
            **{name: found.total(name) for name in ("cpu_s", "gpu_s", "wall_s", "read_bytes", "written_bytes")},
            "pods": sum(stage.pods for stage in found.stages) + found.other_pods,
            "requests": found.requests(),
        },
        "limits": remarks(found, assumed),
    }


def _document(stage: StageForecast) -> dict[str, Any]:
    names = ("runs", "frames", "shards", "pods", "cpu_s", "gpu_s", "wall_s")
    sizes = ("memory_bytes", "scratch_bytes", "read_bytes", "written_bytes", "requests")
    return {"stage": stage.step.stage, **{name: getattr(stage, name) for name in (*names, *sizes)}}


def assumptions(pipeline: str, recordings: Recordings, assumed: Assumptions) -> Sequence[str]:
    """Return what was assumed and not measured, in lines."""
    cameras = len(recordings.cameras)
    cut = f"shards of {assumed.shard_minutes:g} min" if assumed.num_shards is None else f"{assumed.num_shards} shards"
    said = [
        f"{cut}, {assumed.parallelism} at a time; the pipeline's own num_shards is {DEFAULT_SHARDS}",
        f"a pod starts in {assumed.pod_start_s:g} s; a stage that is no shard is one process on one core, "
        f"{PACK.stage} {PACK.cores} on as many",
        f"one iteration; further policies to compare with: {assumed.baselines}; no evaluation is counted",
        f"pictures are packed as {assumed.frame_format}"
        + (": each stage decodes what it looks at" if assumed.frame_format == "none" else "; again for the policy"),
    ]
    if DATASETS[pipeline] > 1:
        said.append("labelled episodes are as many as new ones; what runs for both runs twice")
    if others := [camera for camera in recordings.cameras if camera.codec not in DECODERS]:
        seen = ", ".join(f"{camera.name} ({camera.codec or 'of unknown codec'})" for camera in others)
        said.append(f"decoding is counted as that of {OTHER_CODEC.upper()} for {seen}")
    for name, training in (("value model", assumed.value), ("policy", assumed.policy)):
        size = "the small network, on a CPU"
        if training.network is not None:
            size = f"{training.network.preset} on {assumed.gpus} GPUs, {assumed.step_s(training):.3g} s a step"
        said.append(f"{name}: {training.steps} steps of {training.batch} rows, {size}")
    if assumed.value.network is not None:
        rate = f"{1 / assumed.frame_gpu_s(cameras):.3g} frames/s" if cameras else "no pictures"
        why = "as told" if assumed.encodes_per_s is not None else f"{assumed.frame_flops / 1e12:.3g} TFLOP a frame"
        said.append(f"a GPU predicts {rate} ({why}); processes that read pictures for it: {assumed.readers}")
    if assumed.value.network is not None or assumed.policy.network is not None:
        said.append(f"a GPU reaches {assumed.mfu:.0%} of {assumed.tflops:g} TFLOP/s: assumed, not measured")
    return said
