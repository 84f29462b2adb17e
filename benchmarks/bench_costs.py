"""What a frame, a picture and a step cost: measured, written to robolift/planner/costs.json, and held to account.

``prepare`` runs the real stages, each in a process of its own by the door that a pod uses, on recordings of several
sizes, with H.264 and AV1 in two resolutions, and finds the coefficients of what ``robolift plan --dataset`` predicts.
It counts requests in a local server that speaks S3. ``check`` then runs the stages on other recordings, of one, four
and sixteen times as much, and the slope that was predicted must lie within 10 % of the slope that is measured: a model
of costs is right if it scales right. It is no comparison with others' work; the limit is the work itself.

Pictures are shaded, with a bright square and noise of 6 grey levels. The small models compute on the CPU. Values that
labels are made of are random in the place of predicted ones.
"""

from __future__ import annotations

import platform
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.cost_chain import Chain, Taken, written
from benchmarks.cost_data import Shape, write
from benchmarks.cost_fit import CPU, READ, REQUESTS, coefficients, fit, slope
from benchmarks.cost_requests import BUCKET, OPERATIONS, READ_BYTES, counting_runner, server
from benchmarks.harness import Benchmark, Goal, Way
from robolift import storage
from robolift.data.dataset import Dataset
from robolift.manifest import load as load_manifest
from robolift.planner import costs
from robolift.stages import NAMES

REPEATS = 3
SHARDS = 4
ROWS = (Shape(200, 1000), Shape(800, 1000), Shape(800, 250), Shape(800, 250, "v3.0"))
SMALL, LARGE = (240, 320), (480, 640)
PICTURES = (
    *(Shape(4, 150, cameras=2, size=size, codec=codec) for codec in ("h264", "av1") for size in (SMALL, LARGE)),
    Shape(16, 150, cameras=2, size=SMALL),
)
ROWS_CHECK = tuple(Shape(200 * times, 500) for times in (1, 4, 16))
PICTURES_CHECK = tuple(Shape(4 * times, 120, cameras=2, size=(360, 480)) for times in (1, 4, 16))
STEPS, STEPS_CHECK = (4, 40), (12, 48, 192)
POLICY_STEPS, POLICY_STEPS_CHECK = (100, 1000), (150, 600, 2400)
STORED = (
    *(Shape(e, 20, v, cameras=c) for v in ("v2.1", "v3.0") for e, c in ((4, 1), (8, 1), (4, 2))),
    Shape(2, 100_000, "v3.0"),
    Shape(24, 150, "v3.0", cameras=1, size=LARGE),
)
"""Of each version, with another number of episodes, of cameras; a large table; a video that is fetched in windows."""
MANY_FILES = Shape(1100, 2)
"""More files in a folder than a store lists in one answer."""
DECODED = (168, 224)
"""What pictures of 480x640 are scaled to for a network of 224x224."""


def prepare(folder: Path) -> None:
    """Measure and write costs.json; write the recordings of the check."""
    chains = measure(folder, ROWS, PICTURES, repeats=REPEATS, steps=STEPS, policy_steps=POLICY_STEPS)
    taken = [one for chain in chains for one in chain.taken]
    stages = fit(taken, {one.run.uri: written(one.run.uri) for one in taken})
    asked = measure_requests(folder)
    document = {
        "measured": machine(),
        "counted": costs.COUNTED,
        "decoding": decoding(chains),
        "stages": {name: {**forms, **asked[name]} for name, forms in stages.items()},
    }
    storage.write_bytes(str(costs.COSTS_FILE), storage.to_json_bytes(document))
    for shape in (*ROWS_CHECK, *PICTURES_CHECK):
        write(folder, shape)


def machine() -> dict[str, Any]:
    """Return on what and with what was measured."""
    facts = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in facts if line.startswith("model name")]
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": names[0] if names else platform.processor(),
        "cores": len(names),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("numpy", "pyarrow", "av", "torch", "jax", "s3fs")},
    }


def measure(
    folder: Path,
    rows: tuple[Shape, ...],
    pictures: tuple[Shape, ...],
    *,
    repeats: int,
    steps: tuple[int, ...],
    policy_steps: tuple[int, ...],
) -> list[Chain]:
    """Run every stage on every recording; training for each number of steps on the first, and for one on others."""
    work = Path(tempfile.mkdtemp(dir=folder))
    chains = []
    for shape in rows:
        chain = Chain(str(write(folder, shape)), work, str(work / shape.name))
        chain.rows(shards=SHARDS, repeats=repeats)
        for number in policy_steps if shape == rows[0] else policy_steps[:1] if shape == rows[1] else ():
            for repeat in range(repeats):
                chain.policy(steps=number, repeat=repeat)
        chains.append(chain)
    for shape in pictures:
        chain = Chain(str(write(folder, shape)), work, str(work / shape.name))
        chain.pictures(steps=steps if shape == pictures[0] else steps[:1], repeats=repeats)
        chains.append(chain)
    return chains


def decoding(chains: list[Chain]) -> costs.Form:
    """Return what it costs to decode pictures and to scale them down, CPU seconds."""
    runs = []
    for chain in chains:
        imported = next(one for one in chain.taken if one.stage == "import_dataset")
        if not imported.counts["picture"]:
            continue
        dataset = Dataset.open(load_manifest(imported.run.uri))
        for _ in range(2):  # the first opens files
            begin = time.process_time()
            for episode in range(4):
                for camera in dataset.cameras:
                    sum(1 for _ in dataset.video(episode, camera, size=DECODED))
            spent = time.process_time() - begin
        part = 4 / imported.counts["episode"]
        runs.append(({name: count * part for name, count in imported.counts.items()}, spent))
    return coefficients(("picture", "pixel_h264", "pixel_av1"), runs)


def measure_requests(folder: Path) -> dict[str, dict[str, Any]]:
    """Return for each stage what it asks of an object store, by operation, and the bytes that it is sent."""
    import fsspec  # noqa: PLC0415

    work = Path(tempfile.mkdtemp(dir=folder))
    runs: dict[str, list[tuple[costs.Counts, dict[str, float]]]] = {name: [] for name in CPU}
    with server() as counting:
        store = fsspec.filesystem("s3")
        for shape in (*STORED, MANY_FILES):
            store.put(str(write(folder, shape)), f"{BUCKET}/{shape.name}", recursive=True)
            root = f"s3://{BUCKET}/out-{shape.name}"
            chain = Chain(f"s3://{BUCKET}/{shape.name}", work, root, runner=counting_runner(counting))
            _stored(chain, shape)
            for one in chain.taken:
                runs[one.stage].append((one.counts, dict(one.run.requests)))
    return {
        stage: {
            "requests": {
                name: coefficients(REQUESTS, [(counts, asked[name]) for counts, asked in found], exact=True)
                for name in OPERATIONS
            },
            READ_BYTES: coefficients(READ, [(counts, asked[READ_BYTES]) for counts, asked in found]),
        }
        for stage, found in runs.items()
        if found
    }


def _stored(chain: Chain, shape: Shape) -> None:
    if shape == MANY_FILES:
        chain.dataset()
    elif shape.cameras:
        chain.pictures(steps=(2,), repeats=1)
    else:
        chain.rows(shards=SHARDS, repeats=1)
        chain.policy(steps=2)


def check(folder: Path) -> dict[str, float]:
    """Return predicted / measured slope of CPU seconds for every stage, on recordings that nothing was fitted to."""
    known = costs.load()
    rows = measure(folder, ROWS_CHECK, (), repeats=1, steps=(), policy_steps=POLICY_STEPS_CHECK)
    seen = measure(folder, (), PICTURES_CHECK, repeats=1, steps=STEPS_CHECK, policy_steps=())
    taken = [one for chain in (*rows, *seen) for one in chain.taken]
    return {name: ratio for name, axis in CHECKED.items() if (ratio := _ratio(known, taken, name, axis)) is not None}


def _ratio(known: costs.Costs, taken: list[Taken], stage: str, axis: str) -> float | None:
    runs = [one for one in taken if one.stage == stage and one.counts.get(axis)]
    if axis == "row":  # training: one recording, several numbers of steps
        runs = [one for one in runs if one.counts["frame"] == runs[0].counts["frame"]]
    if axis == "frame":
        runs = [one for one in runs if not one.counts["picture"]]
    if not runs:
        return None
    along = [one.counts[axis] for one in runs]
    predicted = [costs.evaluate(known.stages[stage].cpu_s, one.counts) for one in runs]
    return slope(along, predicted) / slope(along, [one.run.cpu_s for one in runs])


CHECKED = {
    **dict.fromkeys(CPU, "frame"),
    **dict.fromkeys(("pack_frames", "predict_values"), "picture"),
    **dict.fromkeys(("train_value", "train_policy"), "row"),
}
GOALS = tuple(
    Goal(f"{name}: predicted / measured slope", over=("check",), of=name, at_least=0.9, at_most=1.1)
    for name in CHECKED
    if name in NAMES
)
BENCHMARK = Benchmark(name="costs", prepare=prepare, ways=(Way("check", check),), goals=GOALS, rounds=3)
