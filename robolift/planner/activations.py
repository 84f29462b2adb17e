"""What a layer keeps for its gradient, and what the gradient takes on top.

How many tensors of which shape is counted in the autodiff of the layers themselves (:class:`~.stack.Keeps`), to which
tests hold it. Letters: T tokens and D, M the width and hidden width of a lane, N all tokens of a sequence, n, k, h
heads, key heads and head width, c bytes of the computation (2 for bfloat16).
"""

from __future__ import annotations

from robolift.planner.network import FLOAT_BYTES, Network
from robolift.planner.stack import Stack


def attention_bytes(stack: Stack, compute_bytes: int) -> int:
    """Return what one layer's attention weights take, for one row: (4 + c) n N^2, 0 where none are kept.

    The softmax is computed in float32 and kept, and so is its copy of the computation's type. Fused attention computes
    them again from queries, keys and one number a query (Dao et al. 2022, "FlashAttention").
    """
    return stack.attention_pairs * (FLOAT_BYTES + compute_bytes) * stack.keeps.attention


def layer_bytes(stack: Stack, compute_bytes: int) -> int:
    """Return what one layer keeps for its gradient unless it is computed again, for one row.

    For pi0.5 in JAX the sum over lanes of 24 T D + c (2 T D + 8 T M), with 4 for 2 in a lane with adaRMS; c (2 n + 2 k)
    N h of queries, keys, values and their mix; (4 + c) n N^2 of attention.
    """
    keeps, c = stack.keeps, compute_bytes
    lanes = 0
    for lane in stack.lanes:
        inputs = keeps.inputs + 2 * lane.conditioned
        lanes += lane.tokens * lane.width * (FLOAT_BYTES * keeps.norms + c * inputs)
        lanes += lane.tokens * lane.mlp_dim * c * keeps.hidden
    keys = stack.num_kv_heads if keeps.shared_keys else stack.num_heads
    heads = c * 2 * (stack.num_heads + keys) + FLOAT_BYTES * keeps.head_norms * stack.num_heads
    return stack.sequences * (lanes + heads * stack.head_dim * stack.tokens) + attention_bytes(stack, c)


def gradient_bytes(stack: Stack, compute_bytes: int) -> int:
    """Return what the gradients inside one layer take beside what it kept, for one row.

    The larger of 2 c T M (of the two sides of the gate) and 8 n N^2 (of the softmax and of the logits): the
    feed-forward layer is done when attention begins.
    """
    hidden = stack.sequences * sum(lane.tokens * lane.mlp_dim for lane in stack.lanes)
    return 2 * max(compute_bytes * hidden, FLOAT_BYTES * stack.attention_pairs * stack.keeps.attention)


def kept_bytes(network: Network, *, remat: bool) -> int:
    """Return what a forward pass keeps for the gradient, for one row.

    With ``remat`` each layer's input alone (Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost", with a
    checkpoint at each layer), otherwise all that :func:`layer_bytes` counts; and what lies outside of the layers.
    """
    c = network.compute_bytes
    inputs = network.stream_bytes
    layers = sum(s.depth * (inputs * s.layer_inputs if remat else layer_bytes(s, c)) for s in network.differentiated)
    return layers + network.outer_bytes


def working_bytes(network: Network, *, remat: bool) -> int:
    """Return the most that one layer takes while its gradient is computed, for one row.

    With ``remat`` it is computed again first, and keeps for that moment what it would have kept all along.
    """
    c = network.compute_bytes
    return max(gradient_bytes(s, c) + (layer_bytes(s, c) if remat else 0) for s in network.differentiated)
