"""Which stages are run to know what they cost: those of recordings and tables of several sizes, and decoding alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.cost_chain import Chain, Job, publish_tables
from benchmarks.cost_data import FPS, Shape, write
from benchmarks.cost_fit import ON_TABLES
from robolift import storage
from robolift.planner.recordings import Recordings, read
from robolift.planner.workload import counted

SHARDS = (4, 16)
RUNS = "runs"
"""Folder of what stages are given; what they make goes away when it was measured."""
DECODING, READING = "decoding", "reading"
"""Measured like stages: videos decoded alone, and packed pictures read."""


def save(folder: Path, name: str, jobs: Sequence[Job]) -> None:
    """Keep jobs in a file."""
    storage.write_bytes(str(folder / name), storage.to_json_bytes([dataclasses.asdict(job) for job in jobs]))


def load(folder: Path, name: str) -> list[Job]:
    """Return the jobs of a file."""
    return [Job(**one) for one in storage.read_json(str(folder / name))]


def on_tables(folder: Path, sizes: Sequence[tuple[int, int]], long: Sequence[tuple[int, int]] = ()) -> list[Job]:
    """Return the stages that read tables alone, for each (episodes, frames of each); of few shards, and of many.

    For each of ``long`` only the value targets are made, and values merged.
    """
    jobs = []
    for place, (episodes, length) in enumerate((*long, *sizes)):
        root = folder / RUNS / f"{episodes}x{length}"
        root.mkdir(parents=True)
        chain = Chain(tables_alone(episodes, length), root, str(root), later=True)
        dataset, shards = publish_tables(chain.root, episodes, length), SHARDS[episodes == sizes[-1][0]]
        if place < len(long):
            chain.targets(dataset)
            chain.values(dataset, shards=shards)
        else:
            chain.labels(dataset, shards=shards)
        jobs += chain.jobs
    return jobs


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


def on_rows(folder: Path, shapes: Sequence[Shape], *, steps: Sequence[int]) -> list[Job]:
    """Return the stages that read rows of the source; a policy trains for all ``steps`` on the first, one on the next.

    What reads tables alone is left out: it has :func:`on_tables`.
    """
    jobs = []
    for place, shape in enumerate(shapes):
        chain = recorded(folder, shape)
        dataset = chain.dataset()
        made = chain.labels(dataset, shards=SHARDS[0], report=False)
        chain.rows(dataset, made)
        for number in (steps, steps[:1])[place] if place < 2 else ():
            chain.policy(made, steps=number)
        jobs += without_tables(chain)
    return jobs


def on_pictures(folder: Path, shapes: Sequence[Shape], *, steps: Sequence[int]) -> list[Job]:
    """Return what packs or reads pictures; a value model trains for all ``steps`` on the first, one on others."""
    jobs = []
    for place, shape in enumerate(shapes):
        chain = recorded(folder, shape)
        dataset = chain.dataset()
        chain.pictures(dataset, chain.targets(dataset), steps=steps[:1] if place else steps)
        jobs += without_tables(chain)
    return jobs


def alone(folder: Path, shape: Shape, what: Callable[[Chain, str, str], None]) -> list[Job]:
    """Return one thing that a chain does with a recording and its value targets."""
    chain = recorded(folder, shape)
    dataset = chain.dataset()
    what(chain, dataset, chain.targets(dataset))
    return without_tables(chain)


def decoded(folder: Path, shapes: Sequence[Shape]) -> list[Job]:
    """Return the decoding of recordings."""
    sources = [str(write(folder, shape)) for shape in shapes]
    return [Job(DECODING, {}, {"source": source}, counted(read(source))) for source in sources]


def recorded(folder: Path, shape: Shape) -> Chain:
    """Return the chain of a recording."""
    root = folder / RUNS / shape.name
    root.mkdir(parents=True)
    return Chain.of(str(write(folder, shape)), root, str(root), later=True)


def without_tables(chain: Chain) -> list[Job]:
    """Return the jobs of a recording that read more than tables."""
    return [job for job in chain.jobs if job.stage not in ON_TABLES]


def size(job: Job) -> tuple[float, ...]:
    """Return by what jobs of a stage are ordered, so that those alike run after each other."""
    return tuple(job.counts.get(name, 0.0) for name in ("picture", "frame", "row"))
