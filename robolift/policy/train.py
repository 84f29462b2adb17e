"""Training a policy from published inputs to files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from robolift import storage
from robolift.data.dataset import Dataset
from robolift.data.split import carried_over
from robolift.errors import DataError
from robolift.labeling.prompts import PromptTable, advantage_prompts
from robolift.logging import get_logger
from robolift.manifest import Manifest
from robolift.policy import hosts, learning, loop, model, norm_stats
from robolift.policy.checkpoint import PolicySpec, StateStore, save_policy
from robolift.policy.data import ChunkData, Labels, Prepared, prepare
from robolift.policy.presets import PRESETS
from robolift.policy.recipe import PROMPTED, UNLABELLED, Recipe
from robolift.policy.vision import FrozenEncoder, read_features

PROMPTS_FILE = "prompts.json"


@dataclass(frozen=True, kw_only=True)
class Sources:
    """The published outputs a policy is made from; what its recipe does not need may be None."""

    dataset: Manifest
    labels: Manifest | None = None
    values: Manifest | None = None
    checkpoint: Manifest | None = None
    norm_stats: Manifest | None = None


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


def train(recipe: Recipe, sources: Sources, *, work_uri: str, folder: Path) -> Trained:
    """Train a policy and write model.safetensors, policy.json and the norm statistics it was given into ``folder``.

    On several machines each process calls it alike, and only the main one writes.

    Args:
        recipe: How.
        sources: From what.
        work_uri: Where the resumable state is kept; the same call with the same address goes on from it.
        folder: Local folder of the result.

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
    frozen = _encoder(recipe, sources.checkpoint)
    features = read_features(sources.values, dataset, frozen) if frozen and sources.values else None
    held_out = encoder_held_out(frozen, sources, dataset) if frozen else None
    prepared = prepare(
        dataset, recipe, prompts=prompts, labels=labels, features=features, held_out=held_out, stats=stats
    )
    spec = _spec(recipe, dataset, prompts, prepared, frozen)
    _tell(recipe, spec)
    fitted = loop.fit(spec.architecture, spec.shape, prepared.chunks, recipe, StateStore(work_uri))
    if host.is_main:
        save_policy(folder, spec, fitted.params, frozen.weights if frozen else {})
    if host.is_main and stats is not None:
        content = storage.to_json_bytes(stats.to_dict())
        storage.write_bytes(str(folder / norm_stats.NORM_STATS_FILE), content)
    return _report(fitted, prepared, prompts, dataset)


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


def _encoder(recipe: Recipe, checkpoint: Manifest | None) -> FrozenEncoder | None:
    if recipe.vision == "none" or checkpoint is None:
        return None
    frozen = FrozenEncoder.load(checkpoint.uri)
    if recipe.cameras is not None and sorted(recipe.cameras) != sorted(frozen.spec.cameras):
        raise DataError(
            f"cameras are {', '.join(recipe.cameras) or 'none'}",
            where="config of train_policy",
            expected=f"{', '.join(frozen.spec.cameras)}, on which the encoder was trained",
            mend="leave cameras out, or train a value model with these cameras",
        )
    return frozen


def encoder_held_out(frozen: FrozenEncoder, sources: Sources, dataset: Dataset) -> np.ndarray | None:
    """Return the episodes of ``dataset`` that the encoder was not trained on; None if it knows none of them.

    The encoder was trained to predict actions too. Errors on its training episodes would look better than they are, so
    the policy holds out the same episodes.
    """
    assert sources.checkpoint is not None
    (trained_on,) = sources.checkpoint.inputs["dataset"]
    same = trained_on.digest == sources.dataset.digest
    theirs = dataset if same else Dataset.open(sources.checkpoint.parent("dataset"))
    return carried_over(frozen.held_out_episodes, theirs.sources, dataset.sources)


def _spec(
    recipe: Recipe, dataset: Dataset, prompts: PromptTable, prepared: Prepared, frozen: FrozenEncoder | None
) -> PolicySpec:
    chunks = prepared.chunks
    return PolicySpec(
        architecture=PRESETS[recipe.preset](),
        objective=recipe.objective,
        variant=recipe.variant,
        prompts=prompts,
        bare_prompts=tuple(chunks.bare.tolist()),
        trained_prompts=trained_prompts(recipe, chunks),
        held_out_episodes=tuple(prepared.held_out.tolist()),
        state_keys=tuple(recipe.state_keys),
        state_dims=prepared.state_dims,
        encoder=frozen.spec if frozen else None,
        observation=prepared.observation,
        action=prepared.action,
        action_horizon=recipe.action_horizon,
        execute=recipe.executed,
        fps=dataset.fps,
        steps=recipe.steps,
    )


def trained_prompts(recipe: Recipe, chunks: ChunkData) -> tuple[int, ...]:
    """Return the rows of the prompt table that the policy may be asked for, sorted.

    Without label dropout a policy that is taught under labels must not answer to the bare task: the few frames without
    a label, such as the last of each episode, don't teach it what to do then. It is the prompt that a client forgets to
    label.

    Raises:
        DataError: If no frame to train on has a label.
    """
    taught = set(chunks.prompt[chunks.rows].tolist())
    bare = {int(chunks.bare[row]) for row in taught}
    if recipe.variant not in PROMPTED or recipe.label_dropout > 0:
        return tuple(sorted(taught | bare))
    if not taught - bare:
        raise DataError(
            "no frame to train on has a label",
            where="labels, column advantage_label",
            expected="positive, negative or a slice in some of them",
            mend="label this dataset, or train variant plain",
        )
    return tuple(sorted(taught - bare))


def _tell(recipe: Recipe, spec: PolicySpec) -> None:
    """Say which network is trained, and under which recipe: the name of a recipe says nothing about its size."""
    facts = {"recipe": recipe.recipe} if recipe.recipe else {}
    size = jax.eval_shape(lambda: model.init(jax.random.key(0), spec.architecture, spec.shape))
    get_logger("policy").info("network", preset=recipe.preset, num_weights=model.count(size), **facts)


def _report(fitted: learning.Fit, prepared: Prepared, prompts: PromptTable, dataset: Dataset) -> Trained:
    chunks = prepared.chunks
    counts = np.bincount(chunks.prompt[chunks.rows], minlength=len(prompts))
    episode = np.searchsorted(dataset.starts, np.concatenate([chunks.rows, chunks.held_out_rows]), side="right")
    metrics: dict[str, Any] = {
        "num_weights": model.count(fitted.params),
        "frames_by_prompt": {text: int(n) for text, n in zip(prompts.prompts, counts, strict=True)},
        "train_loss": fitted.curves["train"][-1]["loss"],
        "held_out_episodes": len(np.unique(episode[len(chunks.rows) :])),
    }
    if fitted.curves["validation"]:
        metrics["val_loss"] = fitted.curves["validation"][-1]["loss"]
    num_episodes = len(np.unique(episode[: len(chunks.rows)]))
    return Trained(curves=fitted.curves, metrics=metrics, num_episodes=num_episodes, num_frames=len(chunks.rows))
