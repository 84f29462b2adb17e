"""What a stage takes, or decoding and reading by themselves, and what stages ask of an object store."""

from __future__ import annotations

import mmap
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cost_chain import SIDE, Chain, Job, Taken, written
from benchmarks.cost_data import Shape, write
from benchmarks.cost_fit import CPU, READ, REQUESTS, coefficients
from benchmarks.cost_jobs import DECODING, READING, SHARDS
from benchmarks.cost_requests import BUCKET, OPERATIONS, READ_BYTES, counting_runner, server
from benchmarks.cost_runs import Run, run
from robolift import manifest
from robolift.data.dataset import Dataset
from robolift.data.frame_cache import View, open_cache
from robolift.data.lerobot import LeRobotReader
from robolift.planner.costs import Counts

REPEATS = 2
FETCHED_BYTES = 1 << 30


def measure(folder: Path, job: Job) -> list[Taken]:
    """Do a job and return what it took; pictures that it packs are read as well."""
    if job.stage == DECODING:
        return [measure_decoding(job)]
    with workplace(folder) as work:
        fetch_memory()
        done = run(job.stage, work, root=str(work), inputs=job.inputs, config=job.config)
        taken = [Taken(job.stage, job.counts, done, written(done.uri))]
        if job.stage == "pack_frames":
            taken.append(measure_reading(job.inputs["dataset"], done.uri))
    return taken


def fetch_memory() -> None:
    """Take more memory than a stage does, and free it.

    A host of virtual machines may take back what they have not used for some seconds, and to give it out anew took 5 ms
    for 2 MB: the first stage that held half a gigabyte took 2.8 s, each that followed it 2.1.
    """
    with closing(mmap.mmap(-1, FETCHED_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)) as memory:
        if hasattr(mmap, "MADV_HUGEPAGE"):
            memory.madvise(mmap.MADV_HUGEPAGE)
        for start in range(0, FETCHED_BYTES, mmap.PAGESIZE):
            memory[start] = 1


@contextmanager
def workplace(folder: Path) -> Iterator[Path]:
    """Make a folder that goes away with all that was made in it: the next needs the memory that files of it took."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        yield Path(name)


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
    return Taken(READING, counts, Run("", statistics.median(spent[1:])))


def measure_decoding(job: Job) -> Taken:
    """Decode and scale the videos of a recording as packing does it."""
    with closing(LeRobotReader.open(job.inputs["source"])) as reader:
        spent = [_decode_s(reader) for _ in range(1 + REPEATS)][1:]  # the first reads files from the disk
    return Taken(DECODING, job.counts, Run("", statistics.median(spent)))


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
