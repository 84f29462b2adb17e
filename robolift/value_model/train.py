"""Training a value model from start to files, in this process or in several."""

from __future__ import annotations

import contextlib
import functools
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from robolift import manifest, staging, storage
from robolift.data.dataset import Dataset
from robolift.data.frame_cache import View, open_cache
from robolift.data.frames import PRIVATE, Frames, PackedFrames, pack_frames
from robolift.data.models import model_digest
from robolift.errors import UsageError
from robolift.json_numbers import finite
from robolift.training import distributed
from robolift.training.checkpoint import StateStore
from robolift.training.device import check_compiler, device_for, threads
from robolift.training.distributed import World
from robolift.training.loop import LoopOptions, fit
from robolift.training.profiling import Profile
from robolift.value_model import checkpoint as checkpoints
from robolift.value_model.assemble import trainable
from robolift.value_model.build import build, check_installed
from robolift.value_model.checkpoint import Checkpoint
from robolift.value_model.data import TrainingData, prepare
from robolift.value_model.named_recipes import RECIPES
from robolift.value_model.network import ValueNetwork
from robolift.value_model.objective import ValueObjective
from robolift.value_model.presets import PRESETS, TokenModelConfig
from robolift.value_model.prompts import Prompts, tokenized
from robolift.value_model.recipe import RUNTIME, Recipe

CURVES_FILE = "curves.json"
JOB_FILE = "job.json"
RECIPE_FILE = "recipe.json"


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where a training run reads and writes.

    Attributes:
        dataset_uri: Output folder of import_dataset.
        targets_uri: Output folder of label_returns, empty for a head that learns progress.
        frames_uri: Output folder of pack_frames, empty if there is none.
        work_uri: Resumable state.
        folder: Local folder for the result, written by rank 0.
        profile_steps: Steps that the profiler records.
        profile_uri: Folder of the recording.
    """

    dataset_uri: str
    targets_uri: str
    work_uri: str
    folder: str
    frames_uri: str = ""
    profile_steps: int = 0
    profile_uri: str = ""


def train(recipe: Recipe, places: Places) -> None:
    """Train a value model and write model.safetensors, checkpoint.json, curves.json and the states that are kept.

    Several processes are started by torchrun, unless this already is one of them.

    Raises:
        UsageError: If the recipe doesn't fit the dataset or this machine.
        DataError: If dataset and targets don't fit, or hold numbers that can't be trained on.
        TrainingStoppedError: If a process was stopped or lost; the same call resumes.
    """
    dataset, data, frames = _open(recipe, places)
    if recipe.weights and not recipe.weights_sha256:
        # Worked out once for all processes, and a copy made for an earlier run is found by it.
        recipe = recipe.model_copy(update={"weights_sha256": model_digest(recipe.weights)})
    world = distributed.launched_world()
    if world is None and (recipe.num_processes > 1 or distributed.by_machines()):
        with tempfile.TemporaryDirectory(prefix="robolift-job-") as folder:
            job = Path(folder) / JOB_FILE
            job.write_bytes(storage.to_json_bytes({"recipe": recipe.model_dump(mode="json"), "places": vars(places)}))
            distributed.launch(
                "robolift.value_model.worker",
                [str(job)],
                num_processes=recipe.num_processes,
                error_file=Path(folder) / "error.json",
            )
        return
    train_here(recipe, places, world or World(), dataset, data, frames)


def train_worker(recipe: Recipe, places: Places) -> None:
    """Do the part of one process that torchrun started."""
    world = distributed.launched_world()
    assert world is not None
    train_here(recipe, places, world, *_open(recipe, places))


def _open(recipe: Recipe, places: Places) -> tuple[Dataset, TrainingData, Frames | None]:
    """Open what is trained on, the pictures too where a cache has them; nothing is built before all is found right."""
    if recipe.preset not in PRESETS:
        hint = "; a recipe goes into recipe" if recipe.preset in RECIPES else ""
        raise UsageError(f"preset {recipe.preset!r} is unknown; there are: {', '.join(PRESETS)}{hint}")
    config = PRESETS[recipe.preset]()
    check_installed(config)
    device_for(recipe.device)
    if recipe.compile:
        check_compiler(recipe.device)
    dataset = Dataset.open(manifest.load(places.dataset_uri))
    targets = manifest.load(places.targets_uri).table("targets") if places.targets_uri else None
    data, frames = prepare(recipe, dataset, targets), None
    if places.frames_uri and data.cameras:
        view = View(cameras=data.cameras, size=recipe.image_size, padded=config.padded)
        frames = open_cache(manifest.load(places.frames_uri), view, num_frames=dataset.num_frames)
    return dataset, data, frames


def train_here(
    recipe: Recipe, places: Places, world: World, dataset: Dataset, data: TrainingData, frames: Frames | None = None
) -> None:
    """Train in this process, together with the others of ``world``; without ``frames`` they are decoded first."""
    if world.size != recipe.num_processes:
        raise UsageError(
            f"{world.size} processes were started and num_processes is {recipe.num_processes}; "
            "it is part of what identifies the result, so set it to the number of processes of the job"
        )
    device = device_for(recipe.device, world.local_rank)
    checkpoint = describe(recipe, dataset, data)
    store = StateStore(places.work_uri, recipe.keep_every, functools.partial(assets, recipe, checkpoint))
    with threads(recipe.threads), distributed.connected(world, device):
        model = initial_model(checkpoint, recipe.seed, empty_towers=bool(recipe.weights))
        model = trainable(model, recipe, world, device)
        with packed(recipe, world, dataset, data, padded=checkpoint.padded, cached=frames) as images:
            objective = ValueObjective(model=model, data=data, images=images, recipe=recipe, world=world)
            profile = Profile(places.profile_steps, places.profile_uri)
            with contextlib.closing(objective):
                result = fit(model, objective, loop_options(recipe), world=world, store=store, profile=profile)
        folder = Path(places.folder)
        checkpoints.save(folder, checkpoint.at_step(result.step), result.weights, world)
    if world.is_main:
        store.copy_kept(folder, recipe.steps)
        storage.write_bytes(str(folder / CURVES_FILE), storage.to_json_bytes(finite(result.curves)))


def assets(recipe: Recipe, checkpoint: Checkpoint, step: int) -> dict[str, Any]:
    """Return the documents beside a state: how to use its weights, and how they came about.

    Rows, comparison frames and noise of a step are functions of the recipe's seed and the step, so this is all there is
    to say of the sampler and of random numbers.
    """
    return {
        checkpoints.CHECKPOINT_FILE: checkpoint.at_step(step).to_dict(),
        RECIPE_FILE: recipe.model_dump(mode="json", exclude=set(RUNTIME)),
    }


def loop_options(recipe: Recipe) -> LoopOptions:
    """Return the part of the recipe that the loop needs."""
    return LoopOptions(
        steps=recipe.steps,
        peak_learning_rate=recipe.learning_rate,
        warmup_steps=recipe.warmup_steps,
        final_learning_rate_fraction=recipe.final_learning_rate_fraction,
        weight_decay=recipe.weight_decay,
        gradient_clip=recipe.gradient_clip,
        ema_decay=recipe.ema_decay,
        log_every=recipe.log_every,
        eval_every=recipe.eval_every if recipe.val_fraction > 0 else 0,
        save_every=recipe.save_every,
        select=recipe.select,
        accumulate=recipe.accumulate,
        fused_optimizer=recipe.fused_optimizer,
        save_in_background=recipe.save_in_background,
    )


def describe(recipe: Recipe, dataset: Dataset, data: TrainingData) -> Checkpoint:
    """Return the checkpoint's description before training.

    Raises:
        UsageError: If there is no tokenizer where the recipe says.
        DataError: If the tokenizer is not the preset's, or a task has no prompt that it could tell from the others.
    """
    config = replace(PRESETS[recipe.preset](), head=recipe.head)
    prompts = tokenized(recipe, config, dataset.tasks) if isinstance(config, TokenModelConfig) else Prompts((), "")
    return Checkpoint(
        config=config,
        cameras=data.cameras,
        image_size=recipe.image_size,
        state_keys=tuple(recipe.state_keys),
        state_dims=data.state_dims,
        state_norm=data.state_norm,
        tasks=dataset.tasks,
        action_horizon=recipe.action_horizon if data.actions.shape[1] else 0,
        action_norm=data.action_norm,
        held_out_episodes=tuple(data.held_out.tolist()),
        step=0,
        prompts=prompts.tokens,
        tokenizer_sha256=prompts.tokenizer_sha256,
        weights_sha256=recipe.weights and (recipe.weights_sha256 or model_digest(recipe.weights)),
    )


def initial_model(checkpoint: Checkpoint, seed: int, *, empty_towers: bool = False) -> ValueNetwork:
    """Return an untrained model; its weights depend on the arguments alone, and the global generator is left as it was.

    Args:
        checkpoint: Its description.
        seed: Seed of its weights.
        empty_towers: Whether its towers, if it has any, are to be filled from a file.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(checkpoint.config, checkpoint.shape, empty_towers=empty_towers)


@contextmanager
def packed(
    recipe: Recipe,
    world: World,
    dataset: Dataset,
    data: TrainingData,
    *,
    padded: bool,
    cached: Frames | None = None,
) -> Iterator[Frames | None]:
    """Give all frames: those of a cache if there are, else one array, decoded once a machine; None without cameras.

    The array's file loses its name as soon as every process has it open, and one that a killed process left is removed
    by the next, so gigabytes never pile up on the machine's disk.
    """
    if cached is not None or not data.cameras:
        yield cached
        return
    layout = None
    with contextlib.ExitStack() as leavings:
        if world.local_rank == 0:
            private = staging.claim(Path(tempfile.gettempdir()), PRIVATE)
            leavings.callback(private.release)
            array = pack_frames(dataset, data.cameras, size=recipe.image_size, folder=private.path, padded=padded)
            layout = (world.node, str(array.filename), array.offset, array.shape)
        layouts = {node: place for node, *place in filter(None, distributed.collect(world, layout))}
        path, offset, shape = layouts[world.node]
        images = PackedFrames(os.open(path, os.O_RDONLY), offset, shape, data.cameras)
        distributed.collect(world, None)
    yield images
