"""Training steps whose batches the loader makes, against the same steps on one batch that lies in memory.

A step is what train_value does on one core: augmented pictures of three cameras through the preset ``tiny``, losses and
gradients. The loader makes its batches from a frame cache of raw pixels, as training does, in a thread of the trainer
(``loader_workers: 0``) or in a process of its own (``1``); the reference never makes one, which no training can do, so
the ratio says what loading adds to the wall time of a step. One thread computes and one worker loads, on two cores: a
step that used both would share them with the worker. bench_gpu.py has the same where a GPU computes.

What a step may take at the fastest is the second question: how many samples a second one worker hands to a trainer that
does nothing with them, against making them where they are used. The difference is what the handing over costs.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import Benchmark, Goal, Way
from robolift import manifest
from robolift.data.frame_cache import CachedFrames, View, open_cache
from robolift.data.lerobot_writer import FeatureSpec, LeRobotWriter
from robolift.data.loader import Loader
from robolift.stages.stage import execute
from robolift.training.distributed import World
from robolift.value_model.build import build
from robolift.value_model.data import Normalizer, TrainingData
from robolift.value_model.network import ModelShape
from robolift.value_model.objective import ValueObjective
from robolift.value_model.presets import PRESETS
from robolift.value_model.recipe import Recipe

CAMERAS, SIDE = ("head", "left", "right"), 96
EPISODES, LENGTH = 20, 60
BATCH, STEPS, WARM_UP = 16, 60, 5
HANDED, HANDED_BATCH = 64, 64
AHEAD = 4
"""Batch that starts the clock; those that were made while nobody took any come before it."""


def prepare(folder: Path) -> None:
    """Pack the frames of a recording; a worker's batches must be the trainer's own, to the bit."""
    pack(folder, SIDE)
    made = _objective(folder).batches
    with Loader(made, first_step=0, num_steps=3, num_workers=1) as loader:
        for step, (batch,) in enumerate(loader):
            (expected,) = made(step)
            assert all(np.array_equal(ours, theirs) for ours, theirs in zip(batch, expected, strict=True))


def pack(folder: Path, side: int) -> None:
    """Record episodes of noise, which are of the size that a model sees, and pack their frames as raw pixels."""
    rng = np.random.default_rng(0)
    number = FeatureSpec("float32", (1,))
    writer = LeRobotWriter(
        folder / "recording",
        fps=10,
        features={"observation.state": number, "action": number},
        cameras=dict.fromkeys(CAMERAS, (side, side)),
        robot_type="synthetic",
    )
    for _ in range(EPISODES):
        numbers = np.zeros((LENGTH, 1), np.float32)
        videos = {name: rng.integers(0, 256, (LENGTH, side, side, 3), dtype=np.uint8) for name in CAMERAS}
        writer.add_episode({"observation.state": numbers, "action": numbers}, videos=videos, task="sort")
    writer.finish()
    runs, told = str(folder / "runs"), {"dataset_uri": str(folder / "recording"), "control_mode": "demo"}
    dataset = execute("import_dataset", told, {}, runs)
    packing = {"format": "raw", "size": [side, side], "num_workers": 1}
    (folder / "cache").write_text(execute("pack_frames", packing, {"dataset": dataset.uri}, runs).uri)


def cached(folder: Path, side: int) -> CachedFrames:
    """Return the packed frames."""
    view = View(cameras=CAMERAS, size=(side, side), padded=False)
    frames = open_cache(manifest.load((folder / "cache").read_text()), view, num_frames=EPISODES * LENGTH)
    assert frames is not None
    return frames


def training_data(state_dim: int, action_dim: int) -> TrainingData:
    """Return all that is learned from but pictures."""
    rng, rows = np.random.default_rng(1), EPISODES * LENGTH
    states, actions = (rng.standard_normal((rows, width)).astype(np.float32) for width in (state_dim, action_dim))
    return TrainingData(
        cameras=CAMERAS,
        states=states,
        state_dims=(state_dim,) if state_dim else (),
        state_norm=Normalizer.of(states),
        tasks=np.zeros(rows, np.int64),
        targets=rng.uniform(-1, 0, rows).astype(np.float32),
        actions=actions,
        action_norm=Normalizer.of(actions),
        starts=np.arange(EPISODES + 1) * LENGTH,
        success=np.ones(EPISODES, np.int64),
        held_out=np.empty(0, np.int64),
        train_rows=np.arange(rows),
        val_rows=np.empty(0, np.int64),
    )


def _objective(folder: Path, *, workers: int = 0, batch: int = BATCH) -> Any:
    """Return the objective of a run on synthetic episodes."""
    recipe = Recipe(batch_size=batch, image_size=(SIDE, SIDE), steps=10_000, loader_workers=workers)
    shape = ModelShape(
        num_cameras=len(CAMERAS), state_dim=8, tasks=("sort",), action_dim=7, action_horizon=recipe.action_horizon
    )
    model = build(PRESETS["tiny"](), shape)
    data = training_data(8, 7)
    return ValueObjective(model=model, data=data, images=cached(folder, SIDE), recipe=recipe, world=World())


def _steps(objective: Any) -> dict[str, float]:
    """Return what steps take after a few to warm up, losses and gradients each."""
    begun = (0.0, 0.0)
    with closing(objective):
        for step in range(WARM_UP + STEPS):
            if step == WARM_UP:
                begun = (time.perf_counter(), time.process_time())
            objective.losses(step)["loss"].backward()
            objective.model.zero_grad()
        wall, cpu = time.perf_counter() - begun[0], time.process_time() - begun[1]
    return {"wall_s": wall, "cpu_s": cpu, "step_ms": 1000 * wall / STEPS}


def resident(folder: Path) -> dict[str, float]:
    """Train on one batch, again and again."""
    objective = _objective(folder)
    batch = objective.batches(0)
    objective.batches = lambda _step: batch
    return _steps(objective)


def thread(folder: Path) -> dict[str, float]:
    """Train on batches that a thread makes."""
    return _steps(_objective(folder))


def worker(folder: Path) -> dict[str, float]:
    """Train on batches that a process makes."""
    return _steps(_objective(folder, workers=1))


def _handed(batches: Iterable[Any]) -> dict[str, float]:
    """Return how fast batches come to somebody who reads one number of each picture, after a few to warm up."""
    begun, cpu, seen, count = 0.0, 0.0, 0, 0
    for number, (batch,) in enumerate(batches):
        seen += int(batch.images[:, :, 0, 0, 0].sum())
        if number == AHEAD:
            begun, cpu = time.perf_counter(), time.process_time()
        elif number > AHEAD:
            count += len(batch.images)
    assert seen
    wall, cpu = time.perf_counter() - begun, time.process_time() - cpu
    return {"wall_s": wall, "cpu_s": cpu, "samples_per_s": count / wall}


def here(folder: Path) -> dict[str, float]:
    """Make batches where they are used."""
    made = _objective(folder, batch=HANDED_BATCH).batches
    return _handed(made(step) for step in range(HANDED))


def handed(folder: Path) -> dict[str, float]:
    """Have them made by one worker."""
    made = _objective(folder, batch=HANDED_BATCH).batches
    with Loader(made, first_step=0, num_steps=HANDED, num_workers=1) as loader:
        return _handed(loader)


BENCHMARK = Benchmark(
    name="loader",
    prepare=prepare,
    ways=(
        Way("resident batch", resident),
        Way("a thread", thread),
        Way("a worker", worker),
        Way("made where used", here),
        Way("made by a worker", handed),
    ),
    goals=(
        Goal("wall time of a step, a worker / resident batch", ("a worker", "resident batch"), "wall_s", at_most=1.05),
        Goal("wall time of a step, a thread / resident batch", ("a thread", "resident batch"), "wall_s"),
        Goal("a step of 16 samples on one core, ms", ("resident batch",), "step_ms"),
        Goal("samples a second that a worker makes, 3 cameras of 96x96", ("made by a worker",), "samples_per_s"),
        Goal("samples a second, by a worker / where used", ("made by a worker", "made where used"), "samples_per_s"),
    ),
)
