"""What pi0.5 trains on: pictures of the packed frames, prompts with the state in them, and padded action chunks.

Shape letters: B batch, K cameras, S image side, L prompt tokens, H action horizon, A padded action width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from robolift.data.frames import Frames
from robolift.data.tokenizer import Tokenizer
from robolift.labeling.prompt_formats import BIN_EDGES
from robolift.labeling.prompt_formatter import PromptFormatter
from robolift.labeling.prompts import PromptTable
from robolift.policy.data import ChunkData
from robolift.policy.pi05.network import Inputs


class Batch(NamedTuple):
    """Rows to train on.

    Attributes:
        images: (B, K, S, S, 3) uint8.
        tokens: (B, L) int32 of the prompt.
        mask: (B, L) which of them count.
        bare_tokens: (B, L) int32 of the bare task, for rows whose label is dropped.
        bare_mask: (B, L) which of them count.
        actions: (B, H, A) normalised in their real dimensions, then padded with zeros.
        real: (B, H) 1 where the action exists, 0 past the end.
        weight: (B,) loss weight.
    """

    images: jax.Array
    tokens: jax.Array
    mask: jax.Array
    bare_tokens: jax.Array
    bare_mask: jax.Array
    actions: jax.Array
    real: jax.Array
    weight: jax.Array


def tokenize(formatter: PromptFormatter, prompts: Sequence[str], states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return tokens and mask, (B, L) each, of prompts with (B, S) normalised states, S 0 for none."""
    states = formatter.filled(states)
    pairs = [
        Tokenizer.pad(formatter.tokens(prompt, state if len(state) else None), formatter.length)
        for prompt, state in zip(prompts, states, strict=True)
    ]
    if not pairs:
        empty = (0, formatter.length)
        return np.zeros(empty, np.int32), np.zeros(empty, bool)
    tokens, masks = zip(*pairs, strict=True)
    return np.stack(tokens), np.stack(masks)


def as_inputs(images: jax.Array, tokens: jax.Array, mask: jax.Array) -> Inputs:
    """Return what the network reads; ``images`` are (B, K, S, S, 3) uint8, and all of them are there."""
    there = jnp.ones(images.shape[:2], bool)
    return Inputs(images.astype(jnp.float32) / 255 * 2 - 1, there, tokens, mask)


@dataclass(frozen=True, kw_only=True)
class PromptedRows:
    """The training data of pi0.5; a :class:`robolift.policy.learning.Rows`.

    Attributes:
        chunks: Actions, states (as observation), prompts and weights of every frame.
        frames: (F, K, S, S, 3) uint8, packed or decoded by batch.
        prompts: The prompt table.
        formatter: From prompt and state to tokens.
        action_width: A.
        batch_size: Rows of a step; as many are measured.
        drops_labels: Whether the bare prompts are asked for.
    """

    chunks: ChunkData
    frames: Frames
    prompts: PromptTable
    formatter: PromptFormatter
    action_width: int
    batch_size: int
    drops_labels: bool

    @property
    def num_rows(self) -> int:
        """Rows to train on."""
        return self.chunks.num_rows

    def batch(self, positions: np.ndarray) -> Batch:
        """Return the training rows at ``positions`` in 0..num_rows-1."""
        return self._gather(self.chunks.rows[positions])

    def held_out(self) -> Batch | None:
        """Return a batch of held-out rows, evenly spaced; a few rows stand in it more than once."""
        return self._gather(self.chunks.spaced(self.batch_size)) if len(self.chunks.held_out_rows) else None

    def _gather(self, rows: np.ndarray) -> Batch:
        found = self.chunks.gather(rows)
        prompt, states = np.asarray(found.prompt), np.asarray(found.observation)
        asked = bare = self._tokens(prompt, states)
        if self.drops_labels:
            bare = self._tokens(self.chunks.bare[prompt], states)
        # Normalised first and padded after, or padding would be a target.
        padding = [(0, 0), (0, 0), (0, self.action_width - found.actions.shape[-1])]
        arrays: Any = (self.frames[rows], *asked, *bare, np.pad(found.actions, padding), found.real, found.weight)
        return Batch(*arrays)

    def _tokens(self, rows: np.ndarray, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return tokens and mask of prompts; rows that read alike are tokenized once."""
        read = np.column_stack([rows, np.digitize(states, BIN_EDGES)])
        _, first, places = np.unique(read, axis=0, return_index=True, return_inverse=True)
        tokens, mask = tokenize(self.formatter, [self.prompts[row] for row in rows[first]], states[first])
        return tokens[places], mask[places]
