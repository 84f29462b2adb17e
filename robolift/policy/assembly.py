"""What training a policy needs of its network: one assembly for each kind of network, one way to train them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robolift.data.dataset import Dataset
from robolift.errors import DataError
from robolift.labeling.prompts import PromptTable
from robolift.manifest import Manifest
from robolift.policy.data import ChunkData, Labels, Prepared
from robolift.policy.learning import Learner, Rows
from robolift.policy.model import Params
from robolift.policy.norm_stats import NormStats
from robolift.policy.recipe import PROMPTED, Recipe


@dataclass(frozen=True, kw_only=True)
class Sources:
    """The published outputs a policy is made from; what its recipe does not need may be None."""

    dataset: Manifest
    labels: Manifest | None = None
    values: Manifest | None = None
    checkpoint: Manifest | None = None
    norm_stats: Manifest | None = None
    frames: Manifest | None = None


@dataclass(frozen=True, kw_only=True)
class Material:
    """What is read once, whichever network is trained on it.

    Attributes:
        dataset: The dataset.
        prompts: The prompt table.
        labels: What is taught, None without labels.
        stats: Norm statistics that were given.
        frames: Frame cache of the dataset, None if there is none.
    """

    dataset: Dataset
    prompts: PromptTable
    labels: Labels | None
    stats: NormStats | None
    frames: Manifest | None = None


@dataclass(frozen=True, kw_only=True)
class Assembly:
    """A network with its data, ready to be trained.

    Attributes:
        learner: The network and its objective.
        rows: What it is trained on.
        prepared: Chunks behind the rows.
        num_weights: Of the network, trained or not.
        save: Writes the policy with these trained weights into a folder. Every process of the job has to call it.
    """

    learner: Learner[Any]
    rows: Rows[Any]
    prepared: Prepared
    num_weights: int
    save: Callable[[Path, Params], None]


def taught(recipe: Recipe, material: Material, prepared: Prepared) -> dict[str, Any]:
    """Return the fields of :class:`~robolift.policy.checkpoint.TaughtSpec`."""
    chunks = prepared.chunks
    return {
        "variant": recipe.variant,
        "prompts": material.prompts,
        "bare_prompts": tuple(chunks.bare.tolist()),
        "trained_prompts": trained_prompts(recipe, chunks),
        "held_out_episodes": tuple(prepared.held_out.tolist()),
        "state_keys": tuple(recipe.state_keys),
        "state_dims": prepared.state_dims,
        "action": prepared.action,
        "action_horizon": recipe.action_horizon,
        "execute": recipe.executed,
        "fps": material.dataset.fps,
        "steps": recipe.steps,
    }


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
