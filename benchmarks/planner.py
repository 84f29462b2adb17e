"""Compare the planner's memory with what XLA says of the compiled training step. Nothing is run, nothing allocated.

    XLA_FLAGS=--xla_force_host_platform_device_count=8 python benchmarks/planner.py --preset dummy --devices 8 --fsdp 8

On a machine with GPUs it compiles for these; ``--dtype float32`` is for CPUs, where XLA computes bfloat16 in float32.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from robolift.planner import plan, policy
from robolift.policy.pi05 import network
from robolift.policy.pi05.config import PRESETS, Pi05Config
from robolift.policy.pi05.network import Inputs
from robolift.policy.sharding import batch_sharding, make_mesh, state_shardings


class State(NamedTuple):
    """What a step changes: weights, their average and the optimizer's moments."""

    params: Any
    average: Any
    moments: Any


class Batch(NamedTuple):
    """What a step reads."""

    inputs: Inputs
    actions: Any
    noise: Any
    time: Any


def batch_of(config: Pi05Config, rows: int) -> Batch:
    """Return the shapes of a batch of ``rows``."""

    def array(*shape: int, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((rows, *shape), dtype)

    cameras, side, length = len(config.cameras), config.vision.image_side, config.max_token_len
    seen = Inputs(
        array(cameras, side, side, 3),
        array(cameras, dtype=bool),
        array(length, dtype=jnp.int32),
        array(length, dtype=bool),
    )
    chunk = array(config.action_horizon, config.action_dim)
    return Batch(seen, chunk, chunk, array())


def compiled(config: Pi05Config, *, batch: int, devices: int, fsdp: int) -> Any:
    """Return the compiled step of AdamW with clipped gradients and a moving average, its state donated."""
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-4))

    def loss(params: Any, rows: Batch) -> jax.Array:
        return network.loss_rows(params, config, *rows, config.action_dim).mean()

    def step(state: State, rows: Batch) -> State:
        gradient = jax.grad(loss)(state.params, rows)
        updates, moments = optimizer.update(gradient, state.moments, state.params)
        params = optax.apply_updates(state.params, updates)
        return State(params, jax.tree.map(lambda a, p: 0.99 * a + 0.01 * p, state.average, params), moments)

    params = jax.eval_shape(lambda key: network.init(key, config), jax.random.key(0))
    state = State(params, params, jax.eval_shape(optimizer.init, params))
    mesh = make_mesh(devices, fsdp)
    places = state_shardings(state, mesh)
    jitted = jax.jit(step, in_shardings=(places, batch_sharding(mesh)), out_shardings=places, donate_argnums=0)
    return jitted.lower(state, batch_of(config, batch)).compile()


def compare(config: Pi05Config, *, batch: int, devices: int, fsdp: int) -> dict[str, float]:
    """Return MiB on each device, planned and as compiled: state and batch, and what the step takes beside them."""
    found = compiled(config, batch=batch, devices=devices, fsdp=fsdp).memory_analysis()
    layout = plan.Layout(devices=devices, fsdp=fsdp, remat=config.remat, average=True, memory_gib=80)
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
