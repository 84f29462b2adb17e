"""Assembly of pi0.5: packed pictures, prompts with the state, and a tokenizer that becomes part of the policy."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from robolift.data.dataset import Dataset
from robolift.data.frames import Frames, open_frames
from robolift.data.tokenizer import Tokenizer
from robolift.errors import DataError
from robolift.labeling.prompt_formatter import PromptFormatter
from robolift.labeling.prompts import PromptTable
from robolift.logging import get_logger
from robolift.policy import learning
from robolift.policy.assembly import Assembly, Material, taught
from robolift.policy.data import Prepared, prepare
from robolift.policy.model import Params
from robolift.policy.pi05 import policy_files, tree
from robolift.policy.pi05.batches import PromptedRows
from robolift.policy.pi05.config import Pi05Config
from robolift.policy.pi05.learner import Pi05Learner, decays
from robolift.policy.pi05.policy_files import Pi05Spec
from robolift.policy.pi05.settings import cameras_by_key
from robolift.policy.recipe import Recipe


def assemble(preset: Pi05Config, recipe: Recipe, material: Material) -> Assembly:
    """Return the network and its data.

    Args:
        preset: Sizes.
        recipe: How.
        material: From what.

    Raises:
        UsageError: If recipe and inputs don't fit.
        DataError: If an input is broken, or a prompt has too many tokens.
    """
    dataset = material.dataset
    cameras = cameras_by_key(recipe.__dict__)
    config = replace(
        preset,
        cameras=tuple(cameras),
        action_horizon=recipe.action_horizon,
        max_token_len=recipe.max_token_len or preset.max_token_len,
    )
    tokenizer = Tokenizer.load(recipe.tokenizer, vocabulary=config.vocabulary, sha256=recipe.tokenizer_sha256)
    prepared = prepare(
        dataset, recipe, prompts=material.prompts, labels=material.labels, features=None, stats=material.stats
    )
    _check_width(dataset, config)
    facts = taught(recipe, material, prepared)
    formatter = _formatter(recipe, config, tokenizer, material.prompts, prepared)
    learner = Pi05Learner(
        config=config,
        recipe=recipe,
        real_dims=dataset.action_dim,
        optimizer=learning.make_optimizer(recipe, decays),
    )
    spec = Pi05Spec(
        **facts,
        config=config,
        camera_keys=cameras,
        state=prepared.observation,
        formatter=formatter.to_dict(),
    )

    def save(target: Path, params: Params) -> None:
        policy_files.save(target, spec, learner.whole(params), tokenizer.content)

    rows = PromptedRows(
        chunks=prepared.chunks,
        frames=_frames(material, cameras, config, recipe),
        prompts=material.prompts,
        formatter=formatter,
        action_width=config.action_dim,
        batch_size=recipe.batch_size,
        drops_labels=recipe.label_dropout > 0,
    )
    return Assembly(learner=learner, rows=rows, prepared=prepared, num_weights=tree.count(config), save=save)


def _frames(material: Material, cameras: Mapping[str, str], config: Pi05Config, recipe: Recipe) -> Frames:
    """Return the pictures of all frames, as openpi sees them."""
    side = config.vision.image_side
    return open_frames(
        material.dataset,
        list(cameras.values()),
        size=(side, side),
        padded=True,
        cache=material.frames,
        num_workers=recipe.decode_workers,
        folder=None if recipe.frame_cache == "none" else Path(tempfile.gettempdir()),
    )


def _check_width(dataset: Dataset, config: Pi05Config) -> None:
    if dataset.action_dim > config.action_dim:
        raise DataError(
            f"an action has {dataset.action_dim} numbers",
            where=dataset.uri,
            expected=f"at most {config.action_dim}, which preset {config.preset} pads actions to",
            mend="leave dimensions out, or choose another preset",
        )


def _formatter(
    recipe: Recipe,
    config: Pi05Config,
    tokenizer: Tokenizer,
    prompts: PromptTable,
    prepared: Prepared,
) -> PromptFormatter:
    """Return the formatter of the prompts that occur, checked with every state, and say which tasks it shortened."""
    chunks = prepared.chunks
    frames = np.concatenate([chunks.rows, chunks.held_out_rows])
    asked = chunks.prompt[frames]
    bare = chunks.bare[asked] if recipe.label_dropout > 0 else asked
    occurring = sorted({*asked.tolist(), *bare.tolist()})
    formatter = PromptFormatter.fit(
        recipe.prompt_format,
        PromptTable(tuple(prompts[row] for row in occurring)),
        tokenizer,
        length=config.max_token_len,
        state_dim=recipe.state_width or sum(prepared.state_dims),
        long_prompt=recipe.long_prompt,
    )
    for task, cut in formatter.cuts.items():
        get_logger("policy").warning("a task is too long for the prompt", task=task, cut=cut)
    for row in occurring:
        states = chunks.observation[frames[(asked == row) | (bare == row)]]
        formatter.check_states(prompts[row], formatter.filled(states))
    return formatter
