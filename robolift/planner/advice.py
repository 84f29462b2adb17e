"""What would fit instead: each proposal is a plan that was worked out and fits."""

from __future__ import annotations

from dataclasses import replace

from robolift.planner import plan
from robolift.planner.network import Network
from robolift.planner.plan import Layout

MOST_NODES = 64
"""Where the search for enough nodes ends."""


def proposals(network: Network, layout: Layout, batch: int, adapted: Network | None, *, gpus: int) -> list[str]:
    """Return changes by which training fits, the mildest first, none if nothing helps.

    Args:
        network: What is trained.
        layout: On what it does not fit.
        batch: Rows of a step, over all GPUs.
        adapted: The same network with low-rank updates; None if there is none.
        gpus: GPUs of a node.
    """
    found = []
    if (most := plan.most_batch(network, layout)) > 0:
        found.append(f"--batch-size {most}")
    wider = [parts for parts in splits(network, layout.devices) if parts > layout.fsdp]
    fitting = [parts for parts in wider if plan.fits(network, replace(layout, fsdp=parts), batch)]
    if fitting:
        found.append(f"--fsdp {fitting[0]}")
    elif wider and (most := plan.most_batch(network, widest := replace(layout, fsdp=wider[-1]))) > 0:
        found.append(f"--fsdp {widest.fsdp} --batch-size {most}")
    if network.trainer == "torch":
        found += _options_of_torch(network, layout, batch)
    if adapted is not None and (most := plan.most_batch(adapted, layout)) > 0:
        found.append(f"--preset {adapted.preset} --batch-size {min(batch, most)}")
    if nodes := _enough_nodes(network, layout, batch, gpus=gpus):
        found.append(f"--nodes {nodes} --fsdp {nodes * gpus}")
    return found


def _options_of_torch(network: Network, layout: Layout, batch: int) -> list[str]:
    """Return what the recipe of a value model can change besides."""
    rows = batch // layout.devices
    parts = [n for n in range(layout.accumulate + 1, rows + 1) if rows % n == 0]
    changes = {f"--accumulate {n}": replace(layout, accumulate=n) for n in parts}
    fitting = [option for option, changed in changes.items() if plan.fits(network, changed, batch)]
    if not layout.remat and plan.fits(network, replace(layout, remat=True), batch):
        return ["--remat on", *fitting[:1]]
    return fitting[:1]


def splits(network: Network, devices: int) -> list[int]:
    """Return the numbers of devices that can share one copy: any divisor in JAX, one or all in torch."""
    divisors = [parts for parts in range(1, devices + 1) if devices % parts == 0]
    return divisors if network.trainer == "jax" else sorted({1, devices})


def _enough_nodes(network: Network, layout: Layout, batch: int, *, gpus: int) -> int:
    """Return the fewest nodes, more than there are, on which the batch fits with one copy on all; 0 for none."""
    for nodes in range(layout.devices // gpus + 1, MOST_NODES + 1):
        whole = replace(layout, devices=nodes * gpus, fsdp=nodes * gpus)
        if plan.fits(network, whole, batch):
            return nodes
    return 0
