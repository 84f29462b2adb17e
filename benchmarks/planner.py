"""Compare the planner's memory with what XLA says of the compiled step of the trainer. Nothing is run or allocated.

    XLA_FLAGS=--xla_force_host_platform_device_count=8 python benchmarks/planner.py --preset dummy --devices 8 --fsdp 8

On a machine with GPUs it compiles for these; ``--dtype float32`` is for CPUs, where XLA computes bfloat16 in float32.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

import jax

from robolift.planner import plan, policy
from robolift.policy import learning, sharding
from robolift.policy.pi05.batches import Batch
from robolift.policy.pi05.config import PRESETS, Pi05Config
from robolift.policy.pi05.learner import Pi05Learner, decays
from robolift.policy.recipe import Recipe


def batch_of(config: Pi05Config, rows: int) -> Batch:
    """Return the shapes of a batch of ``rows``."""

    def array(dtype: str, *shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((rows, *shape), dtype)

    side, horizon = config.vision.image_side, config.action_horizon
    prompt = (array("int32", config.max_token_len), array("bool", config.max_token_len))
    return Batch(
        array("uint8", len(config.cameras), side, side, 3),
        *prompt,
        *prompt,
        array("float32", horizon, config.action_dim),
        array("float32", horizon),
        array("float32"),
    )


def compiled(config: Pi05Config, *, batch: int, devices: int, fsdp: int) -> Any:
    """Return the compiled step of the trainer, as it compiles it."""
    cameras = list(config.cameras)
    recipe = Recipe(
        preset=config.preset,
        tokenizer="unused",
        cameras=cameras,
        batch_size=batch,
        num_devices=devices,
        fsdp_devices=fsdp,
    )
    optimizer = learning.make_optimizer(recipe, decays)
    learner = Pi05Learner(config=config, recipe=recipe, real_dims=config.action_dim, optimizer=optimizer)
    mesh = sharding.make_mesh(devices, fsdp)
    state, frozen = learner.template()
    places, frozen_places = (sharding.state_shardings(held, mesh) for held in (state, frozen))
    step = jax.jit(
        learning.make_step(learner.objective, recipe, optimizer),
        in_shardings=(places, sharding.batch_sharding(mesh), frozen_places),
        out_shardings=places,
        donate_argnums=0,
    )
    with jax.set_mesh(mesh):
        return step.lower(state, batch_of(config, batch), frozen).compile()


def compare(config: Pi05Config, *, batch: int, devices: int, fsdp: int) -> dict[str, float]:
    """Return MiB on each device, planned and as compiled: state and batch, and what the step takes beside them."""
    found = compiled(config, batch=batch, devices=devices, fsdp=fsdp).memory_analysis()
    layout = plan.Layout(devices=devices, fsdp=fsdp, remat=config.remat, memory_gib=80)
    planned = plan.memory(policy.network(config), layout, rows=batch // devices)
    held = planned.parameters + planned.moments + planned.average
    taken = planned.total - held - planned.inputs
    mib = 1 << 20
    return {
        "planned_state": held / mib,
        "state": found.alias_size_in_bytes / mib,
        "planned_step": taken / mib,
        "step": found.temp_size_in_bytes / mib,
        "ratio": (held + taken) / (found.alias_size_in_bytes + found.temp_size_in_bytes),
    }


def main() -> None:
    """Print one line for each number of rows, with and without remat."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=sorted(PRESETS), default="dummy")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--fsdp", type=int, default=1)
    parser.add_argument("--rows", type=int, nargs="+", default=[8, 64], help="of each device")
    parser.add_argument("--remat", choices=("on", "off"), nargs="+", default=["on", "off"])
    args = parser.parse_args()
    print(f"{args.preset} {args.dtype} on {args.devices} {jax.default_backend()} devices, fsdp {args.fsdp}; MiB")
    for remat in args.remat:
        for rows in args.rows:
            config = replace(PRESETS[args.preset](), dtype=args.dtype, remat=remat == "on")
            found = compare(config, batch=rows * args.devices, devices=args.devices, fsdp=args.fsdp)
            numbers = "  ".join(f"{name} {value:.2f}" for name, value in found.items())
            print(f"remat {remat}  rows {rows}  {numbers}", flush=True)


if __name__ == "__main__":
    main()
