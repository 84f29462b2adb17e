"""Training on a GPU: steps whose batches the loader makes against steps on a resident batch, MFU, and cores per GPU.

Set `ROBOLIFT_GPU` to a device as PyTorch names it (`cuda`, `cuda:1`); without, nothing here runs, and with one that
PyTorch doesn't see it ends with an error. `ROBOLIFT_GPU_TFLOPS` is its peak in bfloat16 without sparsity (default: 989,
an H100 or H200). The presets are those that one GPU of 80 GB trains: `tiny`, and `siglip_gemma`, 0.68 billion weights.

**gpu**: a step is that of train_value, with clipping, AdamW and the moving average. *resident* always takes the same
batch, which lies in memory; *loader* takes batches of three cameras from a frame cache of raw pixels, made by worker
processes, and copies them to the GPU. MFU is the FLOPs that the planner counts for the loss and its gradient, over time
and peak. *one core* makes batches where they are used; the samples of a second on the GPU over those of one core are
the cores that it takes to keep the GPU busy.

**gpu_prediction**: labelled frames a second by the encoder on the GPU, over those that one core decodes from H.264
videos of 480x640: the cores that predict_values needs per GPU.
"""

from __future__ import annotations

import functools
import os
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks import bench_loader, bench_prediction
from benchmarks.bench_loader import CAMERAS, cached, training_data
from benchmarks.harness import Benchmark, Goal, Way

VARIABLE = "ROBOLIFT_GPU"
PRESETS = {"tiny": (96, 256, 60), "siglip_gemma": (224, 32, 20)}
"""Side of the pictures, samples of a step, and steps that are measured."""
TOWERS = ("siglip_gemma",)
WARM_UP, WORKERS, ENCODED = 5, 4, 64


def device() -> Any:
    """Return the GPU, set up as training sets it up.

    Raises:
        SystemExit: If PyTorch doesn't see it.
    """
    import torch  # noqa: PLC0415  (most benchmarks are listed without)

    from robolift.training.device import device_for  # noqa: PLC0415

    name, number = os.environ[VARIABLE], torch.cuda.device_count()
    kind, _, rank = name.partition(":")
    if kind != "cuda" or not torch.cuda.is_available() or not 0 <= int(rank or 0) < number:
        raise SystemExit(f"{VARIABLE}={name}: PyTorch sees {number} GPUs; name one, such as cuda")
    return device_for(kind, int(rank or 0))


def prepare(folder: Path) -> None:
    """Pack frames for each preset, once there is a GPU."""
    device()
    for preset, (side, _, _) in PRESETS.items():
        (folder / preset).mkdir()
        bench_loader.pack(folder / preset, side)


def recipe_of(preset: str) -> Any:
    """Return how it is trained."""
    from robolift.value_model.presets import recipe_defaults  # noqa: PLC0415
    from robolift.value_model.recipe import Recipe  # noqa: PLC0415

    side, batch, _ = PRESETS[preset]
    told: dict[str, Any] = {
        "preset": preset,
        "steps": 10_000,
        "batch_size": batch,
        "loader_workers": WORKERS,
        "warmup_steps": 10,
    }
    if preset in TOWERS:
        # Nothing is read there: model_of gives the prompt's tokens.
        told |= {"precision": "bfloat16", "tokenizer": "none"}
    return Recipe(**{**recipe_defaults(preset), **told, "image_size": (side, side)})


def model_of(preset: str, recipe: Any, place: Any) -> Any:
    """Return the model on a device."""
    from robolift.value_model.build import build  # noqa: PLC0415
    from robolift.value_model.network import ModelShape  # noqa: PLC0415
    from robolift.value_model.presets import PRESETS as MODELS  # noqa: PLC0415

    towers = preset in TOWERS
    shape = ModelShape(
        num_cameras=len(CAMERAS),
        state_dim=0 if towers else 8,
        tasks=("sort",),
        prompts=((2, 5, 6, 7),) if towers else (),
        action_dim=0 if towers else 7,
        action_horizon=0 if towers else recipe.action_horizon,
    )
    with place:  # where the numbers of a model of this size are drawn in no time
        return build(MODELS[preset](), shape).to(place)


def objective_of(folder: Path, preset: str, place: Any) -> Any:
    """Return what a step computes, on the frames of the cache."""
    from robolift.training.distributed import World  # noqa: PLC0415
    from robolift.value_model.objective import ValueObjective  # noqa: PLC0415

    recipe, widths = recipe_of(preset), (0, 7) if preset in TOWERS else (8, 7)
    return ValueObjective(
        model=model_of(preset, recipe, place),
        data=training_data(*widths),
        images=cached(folder / preset, PRESETS[preset][0]),
        recipe=recipe,
        world=World(),
    )


def train(folder: Path, *, preset: str, resident: bool) -> dict[str, float]:
    """Return what steps take after some to warm up."""
    import torch  # noqa: PLC0415

    from robolift.training.checkpoint import StateStore  # noqa: PLC0415
    from robolift.training.distributed import ALONE  # noqa: PLC0415
    from robolift.training.loop import LoopOptions, Trainer  # noqa: PLC0415

    place, (_, batch, steps) = device(), PRESETS[preset]
    objective = objective_of(folder, preset, place)
    if resident:
        made = objective.batches(0)
        objective.batches = lambda _step: made
        objective.recipe = objective.recipe.model_copy(update={"loader_workers": 0})
    options = LoopOptions(
        steps=10_000,
        peak_learning_rate=1e-5,
        warmup_steps=10,
        final_learning_rate_fraction=0.1,
        weight_decay=0.1,
        gradient_clip=1.0,
        ema_decay=0.99,
        log_every=10_000,
        eval_every=0,
        save_every=10_000,
        select="last",
    )
    calm = threading.Event()
    with closing(objective), tempfile.TemporaryDirectory() as states:
        trainer = Trainer(objective.model, objective, options, ALONE, StateStore(states))
        wall = clocked(lambda: trainer.advance(calm), lambda: torch.cuda.synchronize(place), steps)
    found = {"wall_s": wall, "step_ms": 1000 * wall / steps, "samples_per_s": steps * batch / wall}
    return found | mfu(preset, wall / steps)


def clocked(step: Callable[[], object], wait: Callable[[], object], number: int) -> float:
    """Return the wall seconds of some steps, the work that the GPU still has at their end included."""
    for _ in range(WARM_UP):
        step()
    wait()
    start = time.perf_counter()
    for _ in range(number):
        step()
    wait()
    return time.perf_counter() - start


def mfu(preset: str, step_s: float) -> dict[str, float]:
    """Return the share of the GPU's peak that a step reaches, for presets that the planner counts."""
    from robolift.planner import plan, value  # noqa: PLC0415
    from robolift.value_model.presets import PRESETS as MODELS  # noqa: PLC0415
    from robolift.value_model.presets import TokenModelConfig  # noqa: PLC0415

    config = MODELS[preset]()
    if not isinstance(config, TokenModelConfig):
        return {}
    row = plan.flops(value.network(config, pictures=len(CAMERAS)), remat=False).model
    return {"mfu": PRESETS[preset][1] * row / step_s / peak_flops()}


def peak_flops() -> float:
    """Return the FLOPs of a second that the GPU is able to, in bfloat16."""
    return float(os.environ.get("ROBOLIFT_GPU_TFLOPS", "989")) * 1e12


def one_core(folder: Path, *, preset: str) -> dict[str, float]:
    """Return the samples that one core makes in a second of its own."""
    import torch  # noqa: PLC0415

    made = objective_of(folder, preset, torch.device("meta")).batches
    made(0)
    start = time.process_time()
    for step in range(1, WARM_UP):
        made(step)
    return {"samples_per_s": (WARM_UP - 1) * PRESETS[preset][1] / (time.process_time() - start)}


def prepare_videos(folder: Path) -> None:
    """Record videos, once there is a GPU."""
    device()
    bench_prediction.prepare_h264(folder)


def encode(_: Path, *, preset: str) -> dict[str, float]:
    """Return the labelled frames whose pictures the GPU encodes in a second."""
    import torch  # noqa: PLC0415

    place, side, recipe = device(), PRESETS[preset][0], recipe_of(preset)
    model = model_of(preset, recipe, place).eval()
    shape = (ENCODED, len(CAMERAS), side, side, 3)
    images = torch.randint(0, 256, shape, dtype=torch.uint8)
    precision = recipe.precision if preset in TOWERS else "float32"
    with torch.inference_mode(), model.autocast(precision):
        steps = PRESETS[preset][2]
        wall = clocked(lambda: model.encode(images.to(place)), lambda: torch.cuda.synchronize(place), steps)
    return {"wall_s": wall, bench_prediction.RATE: steps * ENCODED / wall}


NEEDS = (VARIABLE,)
BENCHMARKS = (
    Benchmark(
        name="gpu",
        prepare=prepare,
        ways=tuple(
            way
            for preset in PRESETS
            for way in (
                Way(f"{preset}, resident", functools.partial(train, preset=preset, resident=True), NEEDS),
                Way(f"{preset}, loader", functools.partial(train, preset=preset, resident=False), NEEDS),
                Way(f"{preset}, one core", functools.partial(one_core, preset=preset), NEEDS),
            )
        ),
        goals=(
            *(
                Goal(
                    f"{p}: wall time of a step, loader / resident",
                    (f"{p}, loader", f"{p}, resident"),
                    "wall_s",
                    at_most=1.05,
                )
                for p in PRESETS
            ),
            *(Goal(f"{p}: MFU with the loader", (f"{p}, loader",), "mfu") for p in TOWERS),
            *(Goal(f"{p}: cores per GPU", (f"{p}, resident", f"{p}, one core"), "samples_per_s") for p in PRESETS),
        ),
    ),
    Benchmark(
        name="gpu_prediction",
        prepare=prepare_videos,
        ways=(
            *(Way(preset, functools.partial(encode, preset=preset), NEEDS) for preset in PRESETS),
            Way("one core decodes", bench_prediction.batches, NEEDS),
        ),
        goals=tuple(
            Goal(f"{preset}: cores per GPU", (preset, "one core decodes"), bench_prediction.RATE) for preset in PRESETS
        ),
    ),
)
