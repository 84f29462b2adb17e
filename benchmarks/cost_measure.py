"""What is run to know what stages cost: recordings of some shapes through chains of stages, and decoding by itself."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cost_chain import SIDE, Chain, Taken, publish_tables
from benchmarks.cost_data import FPS, Shape, write
from benchmarks.cost_fit import CPU, READ, REQUESTS, coefficients
from benchmarks.cost_requests import BUCKET, OPERATIONS, READ_BYTES, counting_runner, server
from benchmarks.cost_runs import Run
from robolift import manifest
from robolift.data.dataset import Dataset
from robolift.data.frame_cache import View, open_cache
from robolift.data.lerobot import LeRobotReader
from robolift.planner.costs import Counts
from robolift.planner.recordings import Recordings, read
from robolift.planner.workload import counted

SHARDS = (4, 16)
REPEATS = 2


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


def measure_rows(
    folder: Path, shapes: Sequence[Shape], *, steps: Sequence[int], copied: Shape | None = None
) -> list[Taken]:
    """Run the stages that read rows of the source; a policy trains for all ``steps`` on the first, one on the next.

    The videos of ``copied`` are exported besides.
    """
    taken = measure_one(folder, copied, Chain.copy) if copied else []
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
    folder: Path, shapes: Sequence[Shape], *, steps: Sequence[int], clips: Sequence[Shape] = ()
) -> list[Taken]:
    """Run the stages that pack or read pictures; a value model trains for all ``steps`` on the first, one on others.

    Packed pictures are read in random order, too, and the videos of ``clips`` decoded.
    """
    taken = [measure_decoding(folder, shape) for shape in clips]
    for place, shape in enumerate(shapes):
        with workplace(folder) as work:
            chain = Chain.of(str(write(folder, shape)), work, str(work / "runs"))
            dataset = chain.dataset()
            packed = chain.pictures(dataset, chain.targets(dataset), steps=steps[:1] if place else steps)
            taken += [*chain.taken, measure_reading(dataset, packed)]
    return taken


def measure_one(folder: Path, shape: Shape, what: Callable[[Chain, str, str], None]) -> list[Taken]:
    """Run one thing that a chain does with a recording and its value targets."""
    with workplace(folder) as work:
        chain = Chain.of(str(write(folder, shape)), work, str(work / "runs"))
        dataset = chain.dataset()
        what(chain, dataset, chain.targets(dataset))
    return chain.taken


def measure_reading(dataset_uri: str, packed_uri: str) -> Taken:
    """Read packed pictures in random order."""
    dataset = Dataset.open(manifest.load(dataset_uri))
    view = View(cameras=tuple(dataset.cameras), size=(SIDE, SIDE), padded=False)
    frames = open_cache(manifest.load(packed_uri), view, num_frames=dataset.num_frames)
    assert frames is not None
    order = np.random.default_rng(0).permutation(dataset.num_frames)
    spent = []
    for _ in range(1 + REPEATS):  # the first opens files
        begin = time.thread_time()
        for rows in np.array_split(order, max(1, len(order) // 32)):
            frames[rows]
        spent.append(time.thread_time() - begin)
    counts = {"picture": float(dataset.num_frames * len(dataset.cameras))}
    return Taken("reading", counts, Run("", statistics.median(spent[1:])))


def measure_decoding(folder: Path, shape: Shape) -> Taken:
    """Decode and scale the videos of a recording as packing does it."""
    source = str(write(folder, shape))
    with closing(LeRobotReader.open(source)) as reader:
        spent = [_decode_s(reader) for _ in range(1 + REPEATS)][1:]  # the first reads files from the disk
    return Taken("decoding", counted(read(source)), Run("", statistics.median(spent)))


def _decode_s(reader: LeRobotReader) -> float:
    begin = time.process_time()
    for episode in range(len(reader.episodes)):
        for camera in reader.cameras:
            for _ in reader.video(episode, camera, size=(SIDE, SIDE)):
                pass
    return time.process_time() - begin


def measure_requests(folder: Path, shapes: Sequence[Shape], *, listed: Shape) -> dict[str, dict[str, Any]]:
    """Return for each stage what it asks of an object store, by operation, and the bytes that it is sent.

    Args:
        folder: For files of the runs.
        shapes: Recordings that go through all stages.
        listed: One of very many files, which is imported alone.
    """
    import fsspec  # noqa: PLC0415

    runs: dict[str, list[tuple[Counts, dict[str, float]]]] = {name: [] for name in CPU}
    with server() as counting, workplace(folder) as work:
        store = fsspec.filesystem("s3")
        for shape in (*shapes, listed):
            store.put(str(write(folder, shape)), f"{BUCKET}/{shape.name}", recursive=True)
            source, root = (f"s3://{BUCKET}/{name}" for name in (shape.name, f"out-{shape.name}"))
            chain = Chain.of(source, work, root, runner=counting_runner(counting))
            dataset = chain.dataset()
            if shape != listed:
                _stored(chain, dataset, shape)
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


def _stored(chain: Chain, dataset: str, shape: Shape) -> None:
    made = chain.labels(dataset, shards=SHARDS[0])
    chain.rows(dataset, made)
    chain.policy(made, steps=2)
    if shape.cameras:
        chain.pictures(dataset, made["targets"], steps=(2,))
