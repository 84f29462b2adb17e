"""A plan as a table to read, or as a document to compute with."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from robolift.planner import plan
from robolift.planner.activations import attention_bytes, kept_bytes, working_bytes
from robolift.planner.network import Network
from robolift.planner.plan import GIB, Layout, Memory

WIDTH = 46


def document(network: Network, layout: Layout, batch: int) -> dict[str, Any]:
    """Return everything that is known of a plan; sizes in bytes, on each GPU unless said.

    Args:
        network: What is trained.
        layout: On what.
        batch: Rows of a step, over all GPUs.
    """
    memory = plan.memory(network, layout, rows=batch // layout.parts)
    served = plan.serving(network)
    return {
        "preset": network.preset,
        "trainer": network.trainer,
        "layout": asdict(layout),
        "batch_size": batch,
        "weights": network.size(),
        "trained_weights": network.size(trained=True),
        "memory_bytes": {**asdict(memory), "total": memory.total, "usable": layout.usable_bytes},
        "state_bytes": plan.state_bytes(network, layout),
        "activations_of_a_row_bytes": activations_of_a_row(network),
        "serving_bytes": asdict(served) if served else None,
        "flops_of_a_row": asdict(plan.flops(network, remat=layout.remat)),
        "largest_batch_size": plan.most_batch(network, layout),
        "fits": plan.fits(network, layout, batch),
    }


def activations_of_a_row(network: Network) -> dict[str, Any]:
    """Return what one row keeps and takes with and without remat, and the attention weights of one layer, bytes."""
    c = network.compute_bytes
    both = {
        name: {"kept": kept_bytes(network, remat=remat), "working": working_bytes(network, remat=remat)}
        for name, remat in (("remat", True), ("no_remat", False))
    }
    return {**both, "attention": {s.name: attention_bytes(s, c) for s in network.stacks}}


def render(network: Network, layout: Layout, batch: int) -> str:
    """Return the table: GiB on each GPU, then serving, the largest batch and FLOPs."""
    rows = batch // layout.parts
    memory = plan.memory(network, layout, rows=rows)
    frozen = network.size(trained=False)
    lines = [
        f"{network.preset} ({network.trainer}): {network.size() / 1e9:.2f} billion weights"
        + (f", {frozen / 1e9:.2f} of them frozen" if frozen else ""),
        f"{layout.devices} GPUs, one copy of large weights on {layout.fsdp}; batch {batch}, {rows} rows on each"
        f"{' at once' if layout.accumulate > 1 else ''}; remat {'on' if layout.remat else 'off'}",
        "",
        f"{'training, on each GPU':<{WIDTH}}     GiB",
        *(_line(name, size) for name, size in _parts(network, memory)),
        _line("sum", memory.total),
        _line(f"may be filled ({plan.USABLE:.0%} of {layout.memory_gib:g} GiB)", layout.usable_bytes),
        "",
        f"{'saving, in the memory of all hosts':<{WIDTH}}     GiB",
        _line("copy of the state while it is written", plan.state_bytes(network, layout)),
        "",
        f"{'activations of one row':<{WIDTH}}     MiB",
        *(f"  {name:<{WIDTH - 2}}{size / 2**20:>8.1f}" for name, size in _of_a_row(network)),
    ]
    if served := plan.serving(network):
        lines += [
            "",
            f"{'serving one robot':<{WIDTH}}     GiB",
            _line("weights, float32", served.weights),
            _line("keys and values of the prefix", served.cache),
            _line("one layer of the prefix", served.working),
        ]
    count = plan.flops(network, remat=layout.remat)
    lines += [
        "",
        f"largest batch that fits: {plan.most_batch(network, layout)}",
        f"a step: {batch * count.model / 1e12:.4g} TFLOP, {batch * count.executed / 1e12:.4g} with what is recomputed",
    ]
    return "\n".join(lines)


def _line(name: str, size: int) -> str:
    return f"  {name:<{WIDTH - 2}}{size / GIB:>8.3f}"


def _parts(network: Network, memory: Memory) -> list[tuple[str, int]]:
    """Return the lines of the training table that are not empty."""
    parts = [
        ("parameters, float32", memory.parameters),
        ("frozen parameters", memory.frozen),
        ("gradients, float32", memory.gradients),
        ("Adam's two moments, float32", memory.moments),
        ("moving average, float32", memory.average),
        ("best average so far, float32", memory.best),
        ("gradients in one buffer, to be averaged", memory.exchange),
        ("weights of a layer as it is computed", memory.layer),
        ("weights of all layers as they are computed", memory.copies),
        ("batch, and the next one", memory.inputs),
        ("activations kept for the gradient", memory.kept),
        ("activations of a layer at work", memory.working),
    ]
    return [(name, size) for name, size in parts if size]


def _of_a_row(network: Network) -> list[tuple[str, int]]:
    found = activations_of_a_row(network)
    return [
        *(
            (f"{kind}, {words}", found[key][kind])
            for key, words in (("remat", "with remat"), ("no_remat", "without"))
            for kind in ("kept", "working")
        ),
        *((f"attention weights of a layer, {name}", size) for name, size in found["attention"].items() if size),
    ]
