"""pi0.5 on a GPU: steps whose batches the loader makes against steps on a resident batch, MFU, and time to act.

Runs where `ROBOLIFT_GPU` is set, as bench_gpu.py says; the whole of pi0.5, 3.35 billion weights, of which weights,
average and moments alone take 54 GB, needs a GPU of 100 GB or more. Weights are random: what they are changes no time.

**gpu_policy**: a step is that of train_policy, compiled, in place, layers computed again, on 32 rows of three cameras
of 224 px, 200 tokens of prompt and 50 actions. Making weights and compiling takes longer than the steps, so blocks of
steps with the loader and on a resident batch take turns in one process; the ratio is the median of the turns'. The
loader's processes read a frame cache of raw pixels. MFU is as in bench_gpu.py. *act* is a chunk for one robot: ten
Euler steps with the prefix computed once, from pictures in host memory to actions in host memory.
"""

from __future__ import annotations

import functools
import os
import statistics
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import bench_loader
from benchmarks.bench_gpu import NEEDS, WORKERS, peak_flops
from benchmarks.bench_loader import CAMERAS
from benchmarks.harness import Benchmark, Goal, Way

PRESET = "pi05"
BATCH, TURNS, STEPS, WARM_UP = 32, 5, 4, 2
ACTION_DIM, CHUNKS = 14, 20


def prepare(folder: Path) -> None:
    """Pack frames, and make a folder of compiled programs: they are the same in every round."""
    (folder / "compiled").mkdir()
    bench_loader.pack(folder, config().vision.image_side)


def config() -> Any:
    """Return the sizes."""
    from robolift.policy.pi05.config import PRESETS  # noqa: PLC0415

    return PRESETS[PRESET]()


@dataclass(frozen=True)
class CachedRows:
    """Rows of training as :class:`robolift.policy.pi05.batches.PromptedRows` makes them; prompts are drawn."""

    frames: Any
    sizes: Any

    @property
    def num_rows(self) -> int:
        """Rows to train on."""
        return bench_loader.EPISODES * bench_loader.LENGTH

    def batch(self, positions: np.ndarray) -> Any:
        """Return the rows at ``positions``."""
        from robolift.policy.pi05.batches import Batch  # noqa: PLC0415

        sizes, rng, rows = self.sizes, np.random.default_rng(positions), len(positions)
        tokens = rng.integers(0, sizes.vocabulary, (rows, sizes.max_token_len), dtype=np.int32)
        mask = np.ones(tokens.shape, bool)
        actions = rng.standard_normal((rows, sizes.action_horizon, sizes.action_dim)).astype(np.float32)
        real, weight = np.ones(actions.shape[:2], np.float32), np.ones(rows, np.float32)
        arrays: Any = (self.frames[positions], tokens, mask, tokens, mask, actions, real, weight)
        return Batch(*arrays)

    def held_out(self) -> None:
        """Return no rows to measure on."""


def train(folder: Path) -> dict[str, float]:
    """Return what steps take, with the loader and on a resident batch."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.95")  # as train_policy's memory_fraction
    import jax  # noqa: PLC0415

    from robolift.data.loader import Loader  # noqa: PLC0415
    from robolift.planner import plan, policy  # noqa: PLC0415
    from robolift.policy import hosts, learning, sharding  # noqa: PLC0415
    from robolift.policy.pi05.learner import Pi05Learner, decays  # noqa: PLC0415
    from robolift.policy.recipe import Recipe  # noqa: PLC0415

    jax.config.update("jax_compilation_cache_dir", str(folder / "compiled"))
    sizes = config()
    told = {"preset": PRESET, "tokenizer": "none", "cameras": list(CAMERAS), "batch_size": BATCH, "steps": 10_000}
    recipe = Recipe.model_validate(told)
    optimizer = learning.make_optimizer(recipe, decays)
    learner = Pi05Learner(config=sizes, recipe=recipe, real_dims=ACTION_DIM, optimizer=optimizer)
    mesh = sharding.make_mesh(1, 1)
    places = tuple(sharding.state_shardings(tree, mesh) for tree in learner.template())
    on_gpu = sharding.batch_sharding(mesh)
    data = CachedRows(bench_loader.cached(folder, sizes.vision.image_side), sizes)
    rows = learning.StepRows(data, learning.make_sampler(recipe, data.num_rows), np.arange(BATCH))
    with jax.set_mesh(mesh):
        state, frozen = learner.begin(*places)
        advance = learning.compiled_step(learner, recipe, places, on_gpu)

        def steps(batch: Callable[[], Any], number: int) -> float:
            nonlocal state
            start = time.perf_counter()
            for _ in range(number):
                state = advance(state, batch(), frozen)
            jax.block_until_ready(state)
            return (time.perf_counter() - start) / number

        resident = hosts.put_rows(rows(0), on_gpu, BATCH)
        with closing(Loader(rows, first_step=0, num_steps=recipe.steps, num_workers=WORKERS)) as loader:
            made = iter(loader)
            ways = (lambda: hosts.put_rows(next(made), on_gpu, BATCH)), (lambda: resident)
            for way in ways:
                steps(way, WARM_UP)
            turns = [[steps(way, STEPS) for way in ways] for _ in range(TURNS)]
    flops = plan.flops(policy.network(sizes), remat=False).model
    loaded, alone = map(statistics.median, zip(*turns, strict=True))
    return {
        "loader_ms": 1000 * loaded,
        "resident_ms": 1000 * alone,
        "ratio": statistics.median(one / other for one, other in turns),
        "samples_per_s": BATCH / loaded,
        "mfu": BATCH * flops / loaded / peak_flops(),
        "gpu_gb": max(device.memory_stats()["peak_bytes_in_use"] for device in jax.devices()) / 1e9,
    }


def act(folder: Path) -> dict[str, float]:
    """Return what a chunk of actions takes."""
    import jax  # noqa: PLC0415
    import jax.numpy as jnp  # noqa: PLC0415

    from robolift.policy.pi05 import network, tree  # noqa: PLC0415
    from robolift.policy.pi05.batches import as_inputs  # noqa: PLC0415

    jax.config.update("jax_compilation_cache_dir", str(folder / "compiled"))
    sizes, rng = config(), np.random.default_rng(0)
    side = sizes.vision.image_side
    drawn = jax.jit(functools.partial(network.init, config=sizes))(jax.random.key(0))
    params = tree.unflatten({path: jnp.asarray(leaf) for path, leaf in tree.flatten(drawn).items()})
    images = rng.integers(0, 256, (1, len(CAMERAS), side, side, 3), dtype=np.uint8)
    tokens = rng.integers(0, sizes.vocabulary, (1, sizes.max_token_len), dtype=np.int32)
    noise = rng.standard_normal((1, sizes.action_horizon, sizes.action_dim)).astype(np.float32)

    @jax.jit
    def chunk(params: Any, images: Any, tokens: Any, noise: Any) -> Any:
        inputs = as_inputs(images, tokens, jnp.ones(tokens.shape, bool))
        return network.sample(params, sizes, inputs, noise, steps=sizes.sampling_steps, real_dims=ACTION_DIM)

    taken = []
    for _ in range(WARM_UP + CHUNKS):
        start = time.perf_counter()
        np.asarray(chunk(params, images, tokens, noise))
        taken.append(1000 * (time.perf_counter() - start))
    return {"chunk_ms": statistics.median(taken[WARM_UP:])}


BENCHMARK = Benchmark(
    name="gpu_policy",
    prepare=prepare,
    ways=(Way("train", train, NEEDS), Way("act", act, NEEDS)),
    goals=(
        Goal("pi05: wall time of a step, loader / resident", ("train",), "ratio", at_most=1.05),
        Goal("pi05: MFU with the loader", ("train",), "mfu"),
        Goal("pi05: samples a second on one GPU", ("train",), "samples_per_s"),
        Goal("pi05: time to act, ms", ("act",), "chunk_ms"),
    ),
    rounds=1,
)
