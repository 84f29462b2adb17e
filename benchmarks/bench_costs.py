"""What a frame, a picture and a step cost: measured, held to account, and written to robolift/planner/costs.json.

Each round runs the real stages, each in a process of its own by the door that a pod uses, on recordings of several
sizes, with H.264 and AV1 in several resolutions, and finds the coefficients of what ``robolift plan --dataset``
predicts. In turn with these it runs them on others, of one and sixteen times as much, and the slope of CPU seconds
that the round's coefficients predict must lie within 10 % of the slope that is measured: a model of costs is right if
it scales right. Written bytes and memory, which may not grow at all, are held to what the largest of these took, within
10 % and 20 %. It is no comparison with others' work; the limit is the work itself. A machine is not as quick at one
hour as at another, so what is compared runs within seconds. What stages are given is made once, before the rounds.

Requests are counted once, in a local server that speaks S3. costs.json, written when results are, is made of the
medians of all rounds. One stage runs at a time: beside another it would take more, and not always as much more.

Pictures are shaded, with a bright square and noise of 3 to 8 grey levels: 0.016 to 0.075 bytes a pixel of H.264, 0.002
to 0.055 of AV1. Where bytes are many, each takes less to decode: the costs have a term for it. The small models compute
on the CPU. Values that labels are made of are random in the place of predicted ones.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.cost_chain import Chain, Taken
from benchmarks.cost_data import Shape
from benchmarks.cost_fit import CPU, DECODED, coefficients, fit, seconds, slope
from benchmarks.cost_jobs import DECODING, READING, alone, decoded, load, on_pictures, on_rows, on_tables, save, size
from benchmarks.cost_measure import measure, measure_requests
from benchmarks.cost_passes import Pass
from benchmarks.harness import Benchmark, Goal, Way
from robolift import storage
from robolift.planner import costs

TABLES = ((250, 1000), (1000, 1000), (4000, 1000), (8000, 125))
"""Episodes, and frames of each."""
LONG, LONG_CHECK = ((3000, 1000), (12_000, 1000), (40_000, 1000)), ((2000, 1000), (32_000, 1000))
"""The same for value targets and merged values alone: a million frames take them hundredths of a second."""
ROWS = (
    *(Shape(episodes, length) for episodes, length in ((200, 1000), (1600, 1000), (1600, 250))),
    *(Shape(episodes, length, "v3.0") for episodes, length in ((800, 250), (5000, 50))),
)
"""More files than a thousand: each takes a little longer where there are many."""
SMALL, LARGE = (240, 320), (480, 640)
NOISE = {"h264": (3, 6, 8), "av1": (5, 6.5, 8)}
CLIPS = tuple(
    Shape(300 // length, length, cameras=2, size=size, codec=codec, noise=noise)
    for codec in ("h264", "av1")
    for size in (SMALL, LARGE)
    for noise, length in zip(NOISE[codec], (150, 30, 150), strict=True)
)
PICTURES = (
    Shape(8, 75, cameras=2, size=SMALL),
    Shape(96, 75, cameras=2, size=SMALL),
    Shape(32, 75, cameras=2, size=LARGE, codec="av1", noise=6),
)
"""Of an episode for each process that packs, and more: an episode is packed by one."""
COPIED = Shape(8, 75, cameras=2, size=SMALL, padding_mb=64)
"""A gigabyte of videos, for what a byte takes to copy."""
TABLES_CHECK = tuple((500 * times, 500) for times in (1, 16))
ROWS_CHECK = tuple(Shape(100 * times, 500) for times in (1, 16))
PREDICTED, PREDICTED_CHECK = (Shape(number, 300, cameras=2) for number in (48, 64))
"""Many small pictures: the small model takes little of each."""
PICTURES_CHECK = tuple(Shape(8 * times, 60, cameras=2, size=(360, 480), codec="av1", noise=7) for times in (1, 16))
STEPS, STEPS_CHECK = (4, 80), (16, 256)
POLICY_STEPS, POLICY_STEPS_CHECK = (100, 8000), (200, 8000)
STORED = (
    *(Shape(e, 20, v, cameras=c) for v in ("v2.1", "v3.0") for e, c in ((4, 1), (8, 1), (4, 2))),
    Shape(2, 100_000, "v3.0"),
    Shape(24, 150, "v3.0", cameras=1, size=LARGE),
)
"""Of each version, with another number of episodes, of cameras; a large table; a video that is fetched in windows."""
MANY_FILES = Shape(1100, 2)
"""More files in a folder than a store lists in one answer."""
ORDER = (DECODING, "pack_frames", DECODING, *(name for name in CPU if name != "pack_frames"))
"""Of a round: decoding before and after what is held to it."""
TURNS = {**dict.fromkeys(CPU, 3), **dict.fromkeys(("pack_frames", "predict_values", "train_policy"), 1)}
"""Of a stage in a round, there and back."""
REQUESTS_FILE, FITTED_FILE, HELD_FILE, COSTS_FILE = "requests.json", "fitted.json", "held.json", "costs.json"
"""In the folder; the costs are those of the last round."""


def prepare(folder: Path) -> None:
    """Count requests, and make all that stages are given."""
    asked = measure_requests(folder, STORED, listed=MANY_FILES)
    storage.write_bytes(str(folder / REQUESTS_FILE), storage.to_json_bytes(asked))
    fitted = [
        *decoded(folder, CLIPS),
        *on_pictures(folder, PICTURES, steps=STEPS),
        *alone(folder, PREDICTED, Chain.prediction),
        *alone(folder, COPIED, Chain.copy),
        *on_rows(folder, ROWS, steps=POLICY_STEPS),
        *on_tables(folder, TABLES, LONG),
    ]
    held = [
        *on_pictures(folder, PICTURES_CHECK, steps=STEPS_CHECK),
        *alone(folder, PREDICTED_CHECK, Chain.prediction),
        *on_rows(folder, ROWS_CHECK, steps=POLICY_STEPS_CHECK),
        *on_tables(folder, TABLES_CHECK, LONG_CHECK),
    ]
    save(folder, FITTED_FILE, fitted)
    save(folder, HELD_FILE, held)


def check(folder: Path) -> dict[str, float]:
    """Measure, and return predicted / measured of every stage on recordings that nothing was fitted to.

    What costs are fitted to and what they are held to run in turn: a machine that is a tenth slower for a while is so
    for both.

    Raises:
        RuntimeError: If something of a stage is not known after it.
    """
    made = Pass([], [])
    todo = [(job, made.runs) for job in load(folder, FITTED_FILE)]
    todo += [(job, made.checked) for job in load(folder, HELD_FILE)]
    for stage in ORDER:
        jobs = sorted((one for one in todo if one[0].stage == stage), key=lambda one: size(one[0]))
        for turn in range(TURNS.get(stage, 1)):
            for job, runs in jobs[:: -1 if turn % 2 else 1]:
                runs.extend(measure(folder, job))
    made.save(folder)
    storage.write_bytes(str(folder / COSTS_FILE), storage.to_json_bytes(document(folder, [made])))
    known = costs.load(folder / COSTS_FILE)
    if lacking := incomplete(known):
        raise RuntimeError(f"not measured: {', '.join(lacking)}")
    return {f"{name} {what}": number for name in CHECKED for what, number in ratios(known, made.checked, name).items()}


def document(folder: Path, passes: Sequence[Pass]) -> dict[str, Any]:
    """Return what costs.json says after these passes."""
    runs = [run for one in passes for run in one.runs]
    decoding = coefficients(DECODED, seconds(runs, DECODING))
    asked = storage.read_json(str(folder / REQUESTS_FILE))
    return {
        "measured": machine(),
        "counted": costs.COUNTED,
        "decoding": decoding,
        "reading": coefficients(("picture",), seconds(runs, READING)),
        "stages": {name: {**forms, **asked[name]} for name, forms in fit(runs, decoding).items()},
    }


def publish(folder: Path) -> None:
    """Make what was measured the costs that a plan computes with."""
    storage.write_bytes(str(costs.COSTS_FILE), storage.to_json_bytes(document(folder, Pass.load_all(folder))))


def incomplete(known: costs.Costs) -> list[str]:
    """Return what is not known of the stages that are planned."""
    kinds = ("cpu_s", "memory_bytes", "written_bytes", "requests", "read_bytes")
    found = [name for name in ("decoding", "reading") if not getattr(known, name)]
    for name in CPU:
        cost = known.stages.get(name)
        found += [f"{kind} of {name}" for kind in kinds if cost is None or not getattr(cost, kind)]
        found += [f"{op} of {name}" for op in ("GET", "PUT") if cost is None or not cost.requests.get(op)]
    return found


def machine() -> dict[str, Any]:
    """Return on what and with what was measured."""
    facts = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in facts if line.startswith("model name")]
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": names[0] if names else platform.processor(),
        "cores": len(names),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("numpy", "pyarrow", "av", "torch", "jax", "s3fs")},
    }


def ratios(known: costs.Costs, taken: Sequence[Taken], stage: str) -> dict[str, float]:
    """Return predicted / measured of one stage: the slope of CPU seconds, bytes and memory of the largest run.

    Raises:
        RuntimeError: If it did not run.
    """
    axis = CHECKED[stage]
    runs = [one for one in taken if one.stage == stage and one.counts.get(axis)]
    if axis == "row":  # training: one recording, several numbers of steps
        runs = [one for one in runs if one.counts["frame"] == runs[0].counts["frame"]]
    elif axis == "frame":  # tables alone where a stage reads no more
        least = min((one.counts["data_file"] for one in runs), default=0)
        runs = [one for one in runs if not one.counts["picture"] and bool(one.counts["data_file"]) == bool(least)]
    if not runs:
        raise RuntimeError(f"{stage} did not run")
    cost, along = known.stages[stage], [one.counts[axis] for one in runs]
    largest = max(runs, key=lambda one: one.counts[axis])
    predicted = [costs.evaluate(cost.cpu_s, one.counts) for one in runs]
    return {
        "slope": slope(along, predicted) / slope(along, [one.run.cpu_s for one in runs]),
        "written": costs.evaluate(cost.written_bytes, largest.counts) / largest.written_bytes,
        "memory": costs.evaluate(cost.memory_bytes, largest.counts) / largest.run.peak_bytes,
    }


CHECKED = {
    **dict.fromkeys(CPU, "frame"),
    **dict.fromkeys(("pack_frames", "predict_values"), "picture"),
    **dict.fromkeys(("train_value", "train_policy"), "row"),
}
COMPARED = {
    "slope": ("predicted / measured slope of CPU seconds", 0.1),
    "written": ("predicted / measured written bytes", 0.1),
    "memory": ("predicted / measured memory", 0.2),  # allocators keep more or less of it
}
GOALS = tuple(
    Goal(f"{name}: {said}", over=("check",), of=f"{name} {what}", at_least=1 - off, at_most=1 + off)
    for name in CHECKED
    for what, (said, off) in COMPARED.items()
)
BENCHMARK = Benchmark(
    name="costs",
    prepare=prepare,
    ways=(Way("check", check),),
    goals=GOALS,
    rounds=5,
    publish=publish,
    timeout_s=3600.0,
)
