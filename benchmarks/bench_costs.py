"""What a frame, a picture and a step cost: measured, held to account, and written to robolift/planner/costs.json.

``prepare`` runs the real stages, each in a process of its own by the door that a pod uses, on recordings of several
sizes, with H.264 and AV1 in two resolutions, and finds the coefficients of what ``robolift plan --dataset`` predicts.
It counts requests in a local server that speaks S3. ``check`` then runs the stages on other recordings, of one and
sixteen times as much, and the slope of CPU seconds that was predicted must lie within 10 % of the slope that is
measured: a model of costs is right if it scales right. Written bytes and memory, which may not grow at all, are held to
what the largest of these took, within 10 % and 20 %. It is no comparison with others' work; the limit is the work
itself.

costs.json is written when results are, after the check. One stage runs at a time: beside another it would take more,
and not always as much more.

Pictures are shaded, with a bright square and noise of 3 to 8 grey levels: 0.016 to 0.075 bytes a pixel of H.264, 0.002
to 0.055 of AV1. Decoding does not cost quite in proportion to bytes: of noisier pictures the costs tell too much. The
small models compute on the CPU. Values that labels are made of are random in the place of predicted ones.
"""

from __future__ import annotations

import os
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cost_chain import SIDE, Chain, Taken, publish_tables
from benchmarks.cost_data import FPS, Shape, write
from benchmarks.cost_fit import CPU, DECODED, READ, REQUESTS, coefficients, fit, slope
from benchmarks.cost_requests import BUCKET, OPERATIONS, READ_BYTES, counting_runner, server
from benchmarks.harness import Benchmark, Goal, Way
from robolift import manifest, storage
from robolift.data.dataset import Dataset
from robolift.data.frame_cache import View, open_cache
from robolift.data.lerobot import LeRobotReader
from robolift.planner import costs
from robolift.planner.recordings import Recordings, read
from robolift.planner.workload import counted

REPEATS = 3
"""Passes over everything, minutes apart, of which the median counts: a machine is not always as quick, nor at first."""
SHARDS = (4, 16)
TABLES = ((1000, 1000), (4000, 1000), (8000, 125))
"""Episodes, and frames of each."""
LONG, LONG_CHECK = ((3000, 1000), (24_000, 1000)), ((2000, 1000), (32_000, 1000))
"""The same for value targets and merged values alone: a million frames take them hundredths of a second."""
ROWS = (Shape(200, 1000), Shape(800, 1000), Shape(800, 250), Shape(800, 250, "v3.0"), Shape(5000, 50, "v3.0"))
SMALL, LARGE = (240, 320), (480, 640)
CLIPS = tuple(
    Shape(2, 150, cameras=2, size=size, codec=codec, noise=noise)
    for codec in ("h264", "av1")
    for size in (SMALL, LARGE)
    for noise in (3, 6, 8)
)
PICTURES = (
    Shape(8, 75, cameras=2, size=SMALL),
    Shape(96, 75, cameras=2, size=SMALL),
    Shape(32, 75, cameras=2, size=LARGE, codec="av1", noise=6),
)
"""Of an episode for each process that packs, and more: an episode is packed by one."""
TABLES_CHECK = tuple((500 * times, 500) for times in (1, 16))
ROWS_CHECK = tuple(Shape(100 * times, 500) for times in (1, 16))
PREDICTED, PREDICTED_CHECK = (Shape(number, 300, cameras=2) for number in (48, 64))
"""Many small pictures: the small model takes little of each."""
PICTURES_CHECK = tuple(Shape(8 * times, 60, cameras=2, size=(360, 480), codec="av1", noise=7) for times in (1, 16))
STEPS, STEPS_CHECK = (4, 80), (16, 256)
POLICY_STEPS, POLICY_STEPS_CHECK = (100, 3200), (200, 3200)
STORED = (
    *(Shape(e, 20, v, cameras=c) for v in ("v2.1", "v3.0") for e, c in ((4, 1), (8, 1), (4, 2))),
    Shape(2, 100_000, "v3.0"),
    Shape(24, 150, "v3.0", cameras=1, size=LARGE),
)
"""Of each version, with another number of episodes, of cameras; a large table; a video that is fetched in windows."""
MANY_FILES = Shape(1100, 2)
"""More files in a folder than a store lists in one answer."""
SCALED_TO = (168, 224)
"""Pictures of 480x640 for a network of 224x224."""


COSTS_FILE = "costs.json"


def prepare(folder: Path) -> None:
    """Measure and write costs.json into the folder; write the recordings of the check.

    Raises:
        RuntimeError: If something of a stage is not known after it.
    """
    reading: list[costs.Form] = []
    runs: list[Taken] = []
    for _ in range(REPEATS):
        runs += measure_rows(folder, ROWS, steps=POLICY_STEPS)
        runs += measure_pictures(folder, PICTURES, steps=STEPS, reading=reading)
        runs += measure_prediction(folder, PREDICTED)
        runs += measure_tables(folder, TABLES, LONG)
    asked = measure_requests(folder)
    decoding = measure_decoding(folder, CLIPS, repeats=REPEATS)
    stages = fit(runs, decoding)
    document = {
        "measured": machine(),
        "counted": costs.COUNTED,
        "decoding": decoding,
        "reading": reading[-1],
        "stages": {name: {**forms, **asked[name]} for name, forms in stages.items()},
    }
    (folder / COSTS_FILE).write_bytes(storage.to_json_bytes(document))
    if lacking := incomplete(costs.load(folder / COSTS_FILE)):
        raise RuntimeError(f"not measured: {', '.join(lacking)}")
    for shape in (*ROWS_CHECK, *PICTURES_CHECK, PREDICTED_CHECK):
        write(folder, shape)


def publish(folder: Path) -> None:
    """Make what was measured the costs that a plan computes with."""
    storage.write_bytes(str(costs.COSTS_FILE), (folder / COSTS_FILE).read_bytes())


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


def measure_tables(folder: Path, sizes: Sequence[tuple[int, int]], long: Sequence[tuple[int, int]] = ()) -> list[Taken]:
    """Run the stages that read tables alone, for each (episodes, frames of each); of few shards, and of many.

    For each of ``long`` only the value targets are made, and values merged.
    """
    taken = []
    for place, (episodes, length) in enumerate((*long, *sizes)):
        with workplace(folder) as work:
            chain = Chain(tables_alone(episodes, length), work, str(work / "runs"))
            dataset, shards = publish_tables(chain.root, episodes, length), SHARDS[episodes == sizes[-1][0]]
            if place < len(long):
                chain.targets(dataset)
                chain.values(dataset, shards=shards)
            else:
                chain.labels(dataset, shards=shards)
            taken += chain.taken
    return taken


@contextmanager
def workplace(folder: Path) -> Iterator[Path]:
    """Make a folder that goes away with all that was made in it: the next needs the memory that files of it took.

    Memory that the system hands out anew, because all else holds files, takes a stage up to a quarter longer.
    """
    with tempfile.TemporaryDirectory(dir=folder) as name:
        yield Path(name)


def tables_alone(episodes: int, length: int) -> Recordings:
    """Return the size of a dataset without files."""
    return Recordings(
        episodes=episodes,
        frames=episodes * length,
        fps=FPS,
        tasks=1,
        cameras=(),
        data_files=0,
        video_files=0,
        data_bytes=0,
        video_bytes=0,
    )


def measure_rows(folder: Path, shapes: Sequence[Shape], *, steps: Sequence[int]) -> list[Taken]:
    """Run the stages that read rows of the source; a policy trains for all ``steps`` on the first, one on the next."""
    taken = []
    for place, shape in enumerate(shapes):
        with workplace(folder) as work:
            chain = Chain.of(str(write(folder, shape)), work, str(work / "runs"))
            dataset = chain.dataset()
            made = chain.labels(dataset, shards=SHARDS[0], report=False)
            chain.rows(dataset, made)
            for number in (steps, steps[:1])[place] if place < 2 else ():
                chain.policy(made, steps=number)
            taken += chain.taken
    return taken


def measure_pictures(
    folder: Path, shapes: Sequence[Shape], *, steps: Sequence[int], reading: list[costs.Form] | None = None
) -> list[Taken]:
    """Run the stages that pack or read pictures; a value model trains for all ``steps`` on the first, one on others.

    What it costs to read pictures of the last recording is added to ``reading``.
    """
    taken = []
    for place, shape in enumerate(shapes):
        with workplace(folder) as work:
            chain = Chain.of(str(write(folder, shape)), work, str(work / "runs"))
            dataset = chain.dataset()
            packed = chain.pictures(dataset, chain.targets(dataset), steps=steps[:1] if place else steps)
            if reading is not None:
                reading.append(measure_reading(dataset, packed, repeats=REPEATS))
            taken += chain.taken
    return taken


def measure_prediction(folder: Path, shape: Shape) -> list[Taken]:
    """Predict the values of a recording."""
    with workplace(folder) as work:
        chain = Chain.of(str(write(folder, shape)), work, str(work / "runs"))
        dataset = chain.dataset()
        chain.prediction(dataset, chain.targets(dataset))
    return chain.taken


def measure_reading(dataset_uri: str, packed_uri: str, *, repeats: int) -> costs.Form:
    """Return what it costs to read packed pictures in random order, CPU seconds."""
    dataset = Dataset.open(manifest.load(dataset_uri))
    view = View(cameras=tuple(dataset.cameras), size=(SIDE, SIDE), padded=False)
    frames = open_cache(manifest.load(packed_uri), view, num_frames=dataset.num_frames)
    assert frames is not None
    order = np.random.default_rng(0).permutation(dataset.num_frames)
    spent = []
    for _ in range(1 + repeats):  # the first opens files
        begin = time.thread_time()
        for rows in np.array_split(order, max(1, len(order) // 32)):
            frames[rows]
        spent.append(time.thread_time() - begin)
    pictures = float(dataset.num_frames * len(dataset.cameras))
    return coefficients(("picture",), [({"picture": pictures}, statistics.median(spent[1:]))])


def measure_decoding(folder: Path, shapes: Sequence[Shape], *, repeats: int) -> costs.Form:
    """Return what it costs to decode pictures and to scale them down, CPU seconds."""
    runs = []
    for shape in shapes:
        source = str(write(folder, shape))
        with closing(LeRobotReader.open(source)) as reader:
            spent = [_decode_s(reader) for _ in range(1 + repeats)][1:]  # the first opens files
        runs.append((counted(read(source)), statistics.median(spent)))
    return coefficients(DECODED, runs)


def _decode_s(reader: LeRobotReader) -> float:
    begin = time.process_time()
    for episode in range(len(reader.episodes)):
        for camera in reader.cameras:
            for _ in reader.video(episode, camera, size=SCALED_TO):
                pass
    return time.process_time() - begin


def measure_requests(folder: Path) -> dict[str, dict[str, Any]]:
    """Return for each stage what it asks of an object store, by operation, and the bytes that it is sent."""
    import fsspec  # noqa: PLC0415

    runs: dict[str, list[tuple[costs.Counts, dict[str, float]]]] = {name: [] for name in CPU}
    with server() as counting, workplace(folder) as work:
        store = fsspec.filesystem("s3")
        for shape in (*STORED, MANY_FILES):
            store.put(str(write(folder, shape)), f"{BUCKET}/{shape.name}", recursive=True)
            source, root = (f"s3://{BUCKET}/{name}" for name in (shape.name, f"out-{shape.name}"))
            chain = Chain.of(source, work, root, runner=counting_runner(counting))
            _stored(chain, shape)
            for one in chain.taken:
                runs[one.stage].append((one.counts, dict(one.run.requests)))
    return {
        stage: {
            "requests": {
                name: coefficients(REQUESTS, [(counts, asked[name]) for counts, asked in found], exact=True)
                for name in OPERATIONS
            },
            READ_BYTES: coefficients(READ[stage], [(counts, asked[READ_BYTES]) for counts, asked in found]),
        }
        for stage, found in runs.items()
        if found
    }


def _stored(chain: Chain, shape: Shape) -> None:
    dataset = chain.dataset()
    if shape == MANY_FILES:
        return
    made = chain.labels(dataset, shards=SHARDS[0])
    chain.rows(dataset, made)
    chain.policy(made, steps=2)
    if shape.cameras:
        chain.pictures(dataset, made["targets"], steps=(2,))


def check(folder: Path) -> dict[str, float]:
    """Return predicted / measured of every stage, on recordings that nothing was fitted to."""
    runs = [
        *measure_pictures(folder, PICTURES_CHECK, steps=STEPS_CHECK),
        *measure_rows(folder, ROWS_CHECK, steps=POLICY_STEPS_CHECK),
        *measure_prediction(folder, PREDICTED_CHECK),
        *measure_tables(folder, TABLES_CHECK, LONG_CHECK),
    ]
    known = costs.load(folder / COSTS_FILE)
    return {f"{name} {what}": number for name in CHECKED for what, number in ratios(known, runs, name).items()}


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
