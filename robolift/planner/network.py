"""What a model is made of, as far as its memory and time depend on it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from robolift.planner.placement import Cut, cut_first_axis, cut_largest_axis
from robolift.planner.stack import Stack

FLOAT_BYTES = 4


@dataclass(frozen=True)
class Weight:
    """One array of weights.

    Attributes:
        shape: Its axes.
        trained: Whether training changes it; a frozen one has no gradient, no moments and no average.
        item_bytes: Bytes of an element as it is kept.
    """

    shape: tuple[int, ...]
    trained: bool = True
    item_bytes: int = FLOAT_BYTES

    @property
    def size(self) -> int:
        """Elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Product:
    """A product with weights outside of the stacks: patches, projections, heads.

    Attributes:
        tokens: Vectors of one row that meet the matrix.
        inputs: Their width.
        outputs: Width of what becomes of them.
    """

    tokens: int
    inputs: int
    outputs: int

    @property
    def flops(self) -> int:
        """Forward FLOPs of one row."""
        return 2 * self.tokens * self.inputs * self.outputs


@dataclass(frozen=True, kw_only=True)
class Network:
    """A model and the rules of the trainer that it has.

    Attributes:
        preset: Its name.
        trainer: ``jax`` for policies, ``torch`` for value models: how arrays are cut, and what else is held.
        weights: Arrays by name.
        compute_bytes: Bytes of an element of an activation.
        stream_bytes: Bytes of an element of what goes from layer to layer.
        stacks: Its stacks of layers, in the order in which they are computed.
        products: What it computes outside of them.
        input_bytes: One row of a batch: pictures, tokens, masks, actions.
        outer_bytes: What one row keeps for the gradient outside of the stacks.
        cached: The stack whose keys and values serving keeps for the prefix, None where nothing is sampled.
    """

    preset: str
    trainer: Literal["jax", "torch"]
    weights: Mapping[str, Weight]
    compute_bytes: int
    stream_bytes: int
    stacks: Sequence[Stack]
    products: Sequence[Product]
    input_bytes: int
    outer_bytes: int
    cached: Stack | None = None

    @property
    def differentiated(self) -> list[Stack]:
        """The stacks that a gradient passes through."""
        return [stack for stack in self.stacks if stack.has_gradient]

    @property
    def cut(self) -> Cut:
        """The rule by which devices share arrays."""
        return cut_largest_axis if self.trainer == "jax" else cut_first_axis

    def size(self, *, trained: bool | None = None) -> int:
        """Return the number of weights, or of those that are trained or frozen."""
        return sum(w.size for w in self.weights.values() if trained in (None, w.trained))

    def device_bytes(self, parts: int, *, trained: bool) -> int:
        """Return the bytes of the trained or the frozen weights on each of ``parts`` devices that share one copy."""
        chosen = (w for w in self.weights.values() if w.trained == trained)
        return sum(w.item_bytes * self.cut(w.shape, w.item_bytes, parts) for w in chosen)
