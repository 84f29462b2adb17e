"""A network laid on a number of GPUs: bytes on each of them, FLOPs and time of a step."""

from __future__ import annotations

import math
from dataclasses import dataclass

from robolift.errors import UsageError
from robolift.planner import activations
from robolift.planner.network import FLOAT_BYTES, Network

GIB = 1 << 30
USABLE = 0.9
"""Share of a GPU's memory that a plan may fill. The rest is for what nobody can count beforehand: the driver's context
and the collectives' buffers, workspaces of matrix products, holes between blocks (docs/planning.md)."""
BATCHES_HELD = 2
"""The batch at work and the one that is copied meanwhile."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """On what a network is trained, and how.

    Attributes:
        devices: GPUs of the whole job.
        fsdp: How many of them share one copy of the large weights; divides ``devices``.
        remat: Whether layers are computed again for their gradients.
        memory_gib: Memory of one GPU, GiB.
        accumulate: Parts that each GPU's rows of a step are computed in, one after the other.
        best: Whether the best weights so far are kept beside the moving average.
    """

    devices: int
    fsdp: int
    remat: bool
    memory_gib: float
    accumulate: int = 1
    best: bool = False

    def __post_init__(self) -> None:
        for name in ("devices", "fsdp", "accumulate", "memory_gib"):
            if not 0 < getattr(self, name) < math.inf:
                raise UsageError(f"{name} is {getattr(self, name)}; expected a number above 0")
        if self.devices % self.fsdp:
            raise UsageError(f"--fsdp {self.fsdp} does not divide the {self.devices} GPUs of the job")

    @property
    def parts(self) -> int:
        """Parts of a batch that are computed by themselves, over all GPUs and one after the other."""
        return self.devices * self.accumulate

    @property
    def usable_bytes(self) -> int:
        """Bytes of one GPU that may be filled."""
        return int(self.memory_gib * GIB * USABLE)


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes on each GPU while one row of the batch, or a number of them, is trained on.

    Attributes:
        parameters: Trained weights, float32.
        frozen: Weights that stay.
        gradients: One for each trained weight, float32.
        moments: Adam's two averages, float32.
        average: Moving average of the trained weights, float32.
        best: The average when it was best, where that is kept.
        exchange: Gradients once more, where processes average them in one flat buffer.
        layer: Weights of one layer as they are used: gathered, of the computation's type, and their gradient.
        copies: Weights of all layers in the computation's type, kept by a gradient without remat.
        inputs: Pictures, tokens and actions.
        kept: What the forward pass keeps for the gradient.
        working: What one layer takes while its gradient is computed.
        attention: Attention weights of that layer; part of ``working``, or of ``kept`` without remat.
    """

    parameters: int
    frozen: int
    gradients: int
    moments: int
    average: int
    best: int
    exchange: int
    layer: int
    copies: int
    inputs: int
    kept: int
    working: int
    attention: int

    @property
    def fixed(self) -> int:
        """What any batch takes."""
        held = self.parameters + self.frozen + self.gradients + self.moments + self.average + self.best
        return held + self.exchange + self.layer + self.copies

    @property
    def total(self) -> int:
        """Everything."""
        return self.fixed + self.inputs + self.kept + self.working


def memory(network: Network, layout: Layout, *, rows: int) -> Memory:
    """Return the bytes on each GPU while ``rows`` rows of the batch are computed on it at once."""
    trained = network.device_bytes(layout.fsdp, trained=True)
    torch, shared = network.trainer == "torch", layout.fsdp > 1
    largest = max(s.layer_weights() for s in network.stacks)
    layers = sum(s.depth * s.layer_weights() for s in network.stacks)
    differentiated = sum(s.depth * s.layer_weights() for s in network.differentiated)
    # fully_shard keeps what lies outside of layers gathered from the forward pass to the gradient.
    outside = 2 * FLOAT_BYTES * (network.size() - layers) if torch and shared else 0
    return Memory(
        parameters=trained,
        frozen=network.device_bytes(layout.fsdp, trained=False),
        gradients=trained,
        moments=2 * trained,
        average=trained,
        best=trained if layout.best else 0,
        exchange=trained if torch and layout.devices > 1 and not shared else 0,
        layer=largest * (FLOAT_BYTES + network.compute_bytes + FLOAT_BYTES * shared) + outside,
        copies=0 if layout.remat else network.compute_bytes * differentiated,
        inputs=BATCHES_HELD * rows * network.input_bytes,
        kept=rows * activations.kept_bytes(network, remat=layout.remat),
        working=rows * activations.working_bytes(network, remat=layout.remat),
        attention=rows * max(activations.attention_bytes(s, network.compute_bytes) for s in network.stacks),
    )


def state_bytes(network: Network, layout: Layout) -> int:
    """Return the bytes of a training state over all processes: what the hosts hold a copy of while it is written.

    Weights, their average, two moments, and the best average where that is kept; no frozen weight.
    """
    return FLOAT_BYTES * (4 + layout.best) * network.size(trained=True)


def most_rows(network: Network, layout: Layout) -> int:
    """Return the most rows that fit each GPU at once, 0 if not even one does: memory is linear in them."""
    fixed = memory(network, layout, rows=0).total
    return max(0, (layout.usable_bytes - fixed) // (memory(network, layout, rows=1).total - fixed))


def most_batch(network: Network, layout: Layout) -> int:
    """Return the largest batch that fits, over all GPUs; 0 if none does."""
    return layout.parts * most_rows(network, layout)


def fits(network: Network, layout: Layout, batch: int) -> bool:
    """Tell whether a batch of ``batch`` rows can be shared by the GPUs in equal parts, and fits them."""
    return batch % layout.parts == 0 and 0 < batch <= most_batch(network, layout)


@dataclass(frozen=True, kw_only=True)
class Serving:
    """Bytes of one GPU that serves a policy to one robot.

    Attributes:
        weights: Weights, in the type that they are stored in.
        cache: Keys and values of the prefix of one row.
        working: One layer of the prefix, while it is computed.
    """

    weights: int
    cache: int
    working: int


def serving(network: Network) -> Serving | None:
    """Return what serving takes, None for a network that nothing is sampled from.

    The cache is c 2 k h P for each layer, with P tokens of pictures and prompt.
    """
    if network.cached is None:
        return None
    c = network.compute_bytes
    return Serving(
        weights=FLOAT_BYTES * network.size(),
        cache=c * network.cached.cache_elements,
        working=max(activations.layer_bytes(s, c) for s in network.stacks),
    )


@dataclass(frozen=True, kw_only=True)
class Flops:
    """FLOPs of one row.

    Attributes:
        forward: Of the loss.
        model: Of the loss and its gradient; what model FLOPs utilization (MFU) counts.
        executed: With what remat computes again.
    """

    forward: int
    model: int
    executed: int


def flops(network: Network, *, remat: bool) -> Flops:
    """Return the FLOPs of training on one row.

    A product y = x W costs the same three times: y, the gradient of x, and that of W unless W is frozen; attention's
    products cost twice their forward for two gradients each. Recomputation is work, but no progress: MFU leaves it out
    (Chowdhery et al. 2022, "PaLM", appendix B).
    """
    outside = sum(product.flops for product in network.products)
    forward = outside + sum(s.product_flops() + s.attention_flops() for s in network.stacks)
    passed = network.differentiated
    gradient = sum(s.product_flops() + s.product_flops(trained_only=True) + 2 * s.attention_flops() for s in passed)
    model = forward + 2 * outside + gradient
    again = sum(s.recomputed_flops() for s in passed) if remat else 0
    return Flops(forward=forward, model=model, executed=model + again)


def step_seconds(network: Network, layout: Layout, batch: int, *, tflops: float, mfu: float) -> float:
    """Return the seconds of a step: model FLOPs of the batch / (GPUs x peak x MFU).

    Args:
        network: What is trained.
        layout: On what.
        batch: Rows of a step, over all GPUs.
        tflops: Peak of one GPU in the computation's type, 10^12 FLOPs a second.
        mfu: Share of the peak that is reached.
    """
    return batch * flops(network, remat=layout.remat).model / (layout.devices * tflops * 1e12 * mfu)
