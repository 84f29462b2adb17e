"""Assembly of the network of :mod:`robolift.policy.model`: states and frozen image features in, a chunk out."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from robolift.data.dataset import Dataset
from robolift.data.split import carried_over
from robolift.errors import DataError
from robolift.manifest import Manifest
from robolift.policy import hosts, model
from robolift.policy.assembly import Assembly, Material, Sources, taught
from robolift.policy.checkpoint import PolicySpec, save_policy
from robolift.policy.data import prepare
from robolift.policy.loop import ChunkLearner, make_optimizer
from robolift.policy.model import Params
from robolift.policy.presets import PolicyConfig
from robolift.policy.recipe import Recipe
from robolift.policy.vision import FrozenEncoder, read_features


def assemble(config: PolicyConfig, recipe: Recipe, sources: Sources, material: Material) -> Assembly:
    """Return the network and its data.

    Raises:
        UsageError: If recipe and inputs don't fit.
        DataError: If an input is broken or was made for other frames.
    """
    dataset = material.dataset
    frozen = _encoder(recipe, sources.checkpoint)
    features = read_features(sources.values, dataset, frozen) if frozen and sources.values else None
    held_out = encoder_held_out(frozen, sources, dataset) if frozen else None
    prepared = prepare(
        dataset,
        recipe,
        prompts=material.prompts,
        labels=material.labels,
        features=features,
        held_out=held_out,
        stats=material.stats,
    )
    spec = PolicySpec(
        **taught(recipe, material, prepared),
        architecture=config,
        objective=recipe.objective,
        encoder=frozen.spec if frozen else None,
        observation=prepared.observation,
    )

    def save(folder: Path, params: Params) -> None:
        if hosts.this_host().is_main:
            save_policy(folder, spec, params, frozen.weights if frozen else {})

    chunks = prepared.chunks
    learner = ChunkLearner(config, spec.shape, recipe, jnp.asarray(chunks.bare), make_optimizer(recipe))
    size = jax.eval_shape(lambda: model.init(jax.random.key(0), config, spec.shape))
    return Assembly(learner=learner, rows=chunks, prepared=prepared, num_weights=model.count(size), save=save)


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
