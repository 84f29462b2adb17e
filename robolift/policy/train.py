"""Training a policy from published inputs to files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from robolift import storage
from robolift.data.dataset import Dataset
from robolift.labeling.prompts import PromptTable, advantage_prompts
from robolift.logging import get_logger
from robolift.manifest import Manifest
from robolift.policy import chunk_assembly, hosts, learning, norm_stats
from robolift.policy.assembly import Assembly, Material, Sources
from robolift.policy.checkpoint import StateStore
from robolift.policy.chunk_assembly import encoder_held_out
from robolift.policy.data import Labels
from robolift.policy.pi05.config import PRESETS as PI05_PRESETS
from robolift.policy.presets import PRESETS
from robolift.policy.recipe import UNLABELLED, Recipe

__all__ = ["Places", "Sources", "Trained", "encoder_held_out", "publishes", "train"]

PROMPTS_FILE = "prompts.json"


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What is worth reporting of a training run.

    Attributes:
        curves: ``train`` and ``validation``: rows of ``step`` and ``loss``.
        metrics: Plain numbers.
        num_episodes: Episodes trained on, held-out ones left out.
        num_frames: Frames trained on.
    """

    curves: dict[str, list[dict[str, Any]]]
    metrics: dict[str, Any]
    num_episodes: int
    num_frames: int


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where a training run reads and writes besides its sources.

    Attributes:
        work_uri: Where the resumable state is kept; the same call with the same address goes on from it.
        folder: Local folder of the result.
        resume_from: Where the state of a run with another number of devices is kept, to begin with if there is none in
            ``work_uri``; empty: begin at the first step.
        beside: Documents for JSON, by file name, to lie beside the state.
    """

    work_uri: str
    folder: Path
    resume_from: str = ""
    beside: Mapping[str, Any] = field(default_factory=dict)


def train(recipe: Recipe, sources: Sources, places: Places) -> Trained:
    """Train a policy and write model.safetensors, policy.json and the norm statistics it was given.

    On several machines each process calls it alike, and only the main one writes.

    Args:
        recipe: How.
        sources: From what.
        places: Where to.

    Raises:
        UsageError: If recipe and inputs don't fit, or training diverges.
        DataError: If an input is broken or was made for other frames.
        TrainingStoppedError: If SIGTERM came; the same call goes on from there.
    """
    host = hosts.join()
    dataset = Dataset.open(sources.dataset)
    given = sources.norm_stats
    stats = norm_stats.load(given, dataset, recipe.state_keys) if given else None
    prompts = _prompts(sources.labels, dataset)
    labels = _labels(recipe, sources.labels, dataset, prompts)
    material = Material(dataset=dataset, prompts=prompts, labels=labels, stats=stats, frames=sources.frames)
    assembly = _assemble(recipe, sources, material)
    _tell(recipe, assembly)
    for name, document in places.beside.items() if host.is_main else ():
        storage.write_bytes(storage.join(places.work_uri, name), storage.to_json_bytes(document))
    origin = _store(recipe, places.resume_from) if places.resume_from else None
    fitted = learning.run(assembly.learner, assembly.rows, recipe, _store(recipe, places.work_uri), origin)
    assembly.save(places.folder, fitted.params)
    if host.is_main and stats is not None:
        content = storage.to_json_bytes(stats.to_dict())
        storage.write_bytes(str(places.folder / norm_stats.NORM_STATS_FILE), content)
    return _report(fitted, assembly, prompts, dataset)


def _assemble(recipe: Recipe, sources: Sources, material: Material) -> Assembly:
    """Return the network that the recipe's preset names: the one place of training that tells networks apart."""
    if recipe.is_pi05:
        from robolift.policy.pi05 import assembly as pi05  # noqa: PLC0415  (Orbax takes seconds to import)

        return pi05.assemble(PI05_PRESETS[recipe.preset](), recipe, material)
    return chunk_assembly.assemble(PRESETS[recipe.preset](), recipe, sources, material)


def _store(recipe: Recipe, uri: str) -> learning.Store:
    """Return the place of the resumable state of this network."""
    if not recipe.is_pi05:
        return StateStore(uri)
    from robolift.policy.pi05.state_store import ShardedStore  # noqa: PLC0415  (Orbax takes seconds to import)

    return ShardedStore(uri)


def publishes() -> bool:
    """Tell whether this process is the one of its job that publishes the output; the others wait for it."""
    return hosts.this_host().is_main


def _prompts(labels: Manifest | None, dataset: Dataset) -> PromptTable:
    """Return the labels' table, which every variant uses so that all have the same number of weights."""
    if labels is None:
        return advantage_prompts(dataset.tasks)
    return PromptTable.from_dict(storage.read_json(labels.file(PROMPTS_FILE)))


def _labels(recipe: Recipe, labels: Manifest | None, dataset: Dataset, prompts: PromptTable) -> Labels | None:
    if labels is None or recipe.variant in UNLABELLED:
        return None
    return Labels.align(labels.table("labels"), dataset, prompts, where=labels.uri)


def _tell(recipe: Recipe, assembly: Assembly) -> None:
    """Say which network is trained, and under which recipe: the name of a recipe says nothing about its size."""
    facts = {"recipe": recipe.recipe} if recipe.recipe else {}
    get_logger("policy").info("network", preset=recipe.preset, num_weights=assembly.num_weights, **facts)


def _report(fitted: learning.Fit, assembly: Assembly, prompts: PromptTable, dataset: Dataset) -> Trained:
    chunks = assembly.prepared.chunks
    counts = np.bincount(chunks.prompt[chunks.rows], minlength=len(prompts))
    episode = np.searchsorted(dataset.starts, np.concatenate([chunks.rows, chunks.held_out_rows]), side="right")
    metrics: dict[str, Any] = {
        "num_weights": assembly.num_weights,
        "frames_by_prompt": {text: int(n) for text, n in zip(prompts.prompts, counts, strict=True)},
        "train_loss": fitted.curves["train"][-1]["loss"],
        "held_out_episodes": len(np.unique(episode[len(chunks.rows) :])),
    }
    if fitted.curves["validation"]:
        metrics["val_loss"] = fitted.curves["validation"][-1]["loss"]
    num_episodes = len(np.unique(episode[: len(chunks.rows)]))
    return Trained(curves=fitted.curves, metrics=metrics, num_episodes=num_episodes, num_frames=len(chunks.rows))
