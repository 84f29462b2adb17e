"""What a layer keeps for its gradient, and what the gradient takes on top: counted in the autodiff of our own layers.

The counts are those of robolift.policy.pi05 under ``jax.vjp``, tensor by tensor; a test holds them to it. Letters: T
tokens and D, M the width and hidden width of a lane, N all tokens of a sequence, n, k, h heads, key heads and head
width, c bytes of the computation (2 for bfloat16).
"""

from __future__ import annotations

from robolift.planner.network import FLOAT_BYTES, Network
from robolift.planner.stack import Lane, Stack

NORM_TENSORS = 6
"""Float32 tensors of T x D of the two norms of a layer: input, square's input and normed input of each."""
GATED_TENSORS, PLAIN_TENSORS = 8, 6
"""Tensors of T x M of a feed-forward layer: six of GELU's polynomial and tanh, and the two sides of the gate."""


def attention_bytes(stack: Stack, compute_bytes: int) -> int:
    """Return what one layer's attention weights take, for one row: (4 + c) n N^2.

    The softmax is computed in float32 and kept, and so is its copy of the computation's type.
    """
    return stack.attention_pairs * (FLOAT_BYTES + compute_bytes)


def layer_bytes(stack: Stack, compute_bytes: int) -> int:
    """Return what one layer keeps for its gradient unless it is computed again, for one row.

    The sum over lanes of 24 T D + c (2 T D + 8 T M), where a lane with adaRMS has 4 for 2 and a feed-forward layer
    without gate 6 for 8; c (2 n + 2 k) N h of queries, keys, values and their mix; (4 + c) n N^2 of attention.
    """
    lanes = sum(_lane_bytes(lane, compute_bytes) for lane in stack.lanes)
    heads = 2 * (stack.num_heads + stack.num_kv_heads) * stack.head_dim * stack.tokens * compute_bytes
    return stack.sequences * (lanes + heads) + attention_bytes(stack, compute_bytes)


def gradient_bytes(stack: Stack, compute_bytes: int) -> int:
    """Return what the gradients inside one layer take beside what it kept, for one row.

    The larger of 2 c T M (of the two sides of the gate) and 8 n N^2 (of the softmax and of the logits): the
    feed-forward layer is done when attention begins.
    """
    hidden = stack.sequences * sum(lane.tokens * lane.mlp_dim for lane in stack.lanes)
    return 2 * max(compute_bytes * hidden, FLOAT_BYTES * stack.attention_pairs)


def kept_bytes(network: Network, *, remat: bool) -> int:
    """Return what a forward pass keeps for the gradient, for one row.

    With ``remat`` each layer's input alone (Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost", with a
    checkpoint at each layer), otherwise all that :func:`layer_bytes` counts; and what lies outside of the layers.
    """
    c = network.compute_bytes
    layers = sum(s.depth * (c * s.layer_inputs if remat else layer_bytes(s, c)) for s in network.stacks)
    return layers + network.outer_bytes


def working_bytes(network: Network, *, remat: bool) -> int:
    """Return the most that one layer takes while its gradient is computed, for one row.

    With ``remat`` it is computed again first, and keeps for that moment what it would have kept all along.
    """
    c = network.compute_bytes
    return max(gradient_bytes(s, c) + (layer_bytes(s, c) if remat else 0) for s in network.stacks)


def _lane_bytes(lane: Lane, compute_bytes: int) -> int:
    wide = lane.tokens * lane.width
    hidden = (GATED_TENSORS if lane.gated else PLAIN_TENSORS) * lane.tokens * lane.mlp_dim
    return FLOAT_BYTES * NORM_TENSORS * wide + compute_bytes * ((4 if lane.conditioned else 2) * wide + hidden)
