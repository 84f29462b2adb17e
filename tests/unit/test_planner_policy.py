"""The planner's arithmetic of pi0.5 beside JAX's own: weights, training state, what autodiff keeps, FLOPs."""

from __future__ import annotations

import functools
import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import optax
import pytest
from jax.sharding import AbstractMesh

from robolift.planner import activations, plan, policy
from robolift.planner.placement import SMALLEST_SHARDED_BYTES, cut_largest_axis
from robolift.policy import sharding
from robolift.policy.loss import flow_errors
from robolift.policy.pi05 import config as configs
from robolift.policy.pi05 import freeze, network, tree
from robolift.policy.pi05.network import Inputs

SIZES = ("pi05", "pi05_lora", "dummy")


def shapes_of(config, rows):
    """Shapes of weights and of a batch; nothing is allocated."""

    def array(*shape, dtype=jnp.float32):
        return jax.ShapeDtypeStruct((rows, *shape), dtype)

    cameras, side, length = len(config.cameras), config.vision.image_side, config.max_token_len
    inputs = Inputs(
        array(cameras, side, side, 3), array(cameras, dtype=bool), array(length, dtype=int), array(length, dtype=bool)
    )
    chunk = array(config.action_horizon, config.action_dim)
    params = jax.eval_shape(functools.partial(network.init, config=config), jax.random.key(0))
    return params, (inputs, chunk, chunk, array())


def loss_of(config):
    def loss(params, inputs, actions, noise, time):
        velocity = functools.partial(network.velocity, params, config, inputs)
        return flow_errors(velocity, actions, noise, time, real_dims=config.action_dim).mean()

    return loss


def size_bytes(arrays):
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(arrays))


@pytest.mark.parametrize("preset", SIZES)
def test_weights_are_those_of_the_network(preset):
    config = configs.PRESETS[preset]()
    planned = policy.network(config)
    params, _ = shapes_of(config, 1)
    assert planned.size() == sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
    assert {n: w.trained for n, w in planned.weights.items()} == tree.flatten(freeze.trained(config))


def test_pi05_has_3_35_billion_weights():
    assert policy.network(configs.pi05()).size() == 3_353_433_872


@pytest.mark.parametrize("preset", SIZES)
@pytest.mark.parametrize("parts", [1, 2, 3, 8, 64])
def test_the_training_state_lies_on_devices_as_it_is_planned(preset, parts):
    config = configs.PRESETS[preset]()
    planned = policy.network(config)
    trained = tree.flatten(freeze.trained(config))
    flat = {name: leaf for name, leaf in tree.flatten(shapes_of(config, 1)[0]).items() if trained[name]}
    moments = jax.eval_shape(optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-4)).init, flat)
    mesh = AbstractMesh((1, parts), (sharding.BATCH_AXIS, sharding.FSDP_AXIS))

    def on_a_device(held):
        places = sharding.state_shardings(held, mesh)
        cut = jax.tree.map(lambda leaf, place: math.prod(place.shard_shape(leaf.shape)) * 4, held, places)
        return sum(jax.tree.leaves(cut))

    layout = plan.Layout(devices=parts, fsdp=parts, remat=True, memory_gib=80)
    memory = plan.memory(planned, layout, rows=0)
    assert memory.parameters == memory.gradients == memory.average == on_a_device(flat)
    # Adam counts its steps in one int32.
    assert memory.moments + 4 == on_a_device(moments)


@pytest.mark.parametrize(
    "shape", [(1024, 1024), (1023, 1024), (1025, 1025), (1 << 21,), (18, 2, 2048, 512), (7, 4096, 64)]
)
@pytest.mark.parametrize("parts", [1, 2, 4, 7, 8])
def test_the_rule_of_cutting_is_that_of_the_trainer(shape, parts):
    mesh = AbstractMesh((2, parts), (sharding.BATCH_AXIS, sharding.FSDP_AXIS))
    place = sharding.state_shardings(jax.ShapeDtypeStruct(shape, jnp.float32), mesh)
    assert cut_largest_axis(shape, 4, parts) == math.prod(place.shard_shape(shape))


def test_the_smallest_array_that_is_cut_is_the_trainers():
    assert SMALLEST_SHARDED_BYTES == sharding.SMALLEST_SHARDED_BYTES
    assert cut_largest_axis((1024, 1024), 4, 2) == 1024 * 512
    assert cut_largest_axis((1023, 1024), 4, 2) == 1023 * 1024


def kept_by_autodiff(config):
    """Bytes that ``jax.vjp`` keeps for each row: the difference between two rows and one."""

    def gradient(params, *batch):
        return jax.vjp(lambda p: loss_of(config)(p, *batch), params)[1]

    one, two = (
        size_bytes(jax.eval_shape(gradient, params, *batch)) for params, batch in (shapes_of(config, n) for n in (1, 2))
    )
    return two - one


@pytest.mark.parametrize("preset", ["pi05", "dummy"])
@pytest.mark.parametrize("remat", [True, False])
def test_kept_activations_are_those_that_autodiff_keeps(preset, remat):
    """Within 3 % at full size; the miniature has masks and action tokens that weigh more beside its small layers."""
    config = replace(configs.PRESETS[preset](), remat=remat)
    planned = activations.kept_bytes(policy.network(config), remat=remat)
    assert planned == pytest.approx(kept_by_autodiff(config), rel=0.03 if preset == "pi05" else 0.15)


def flops_of(jaxpr):
    """FLOPs of the products of a program, those of loops times their length."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left = equation.invars[0].aval.shape
            total += 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[axis] for axis in contracted)
        times = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                total += times * flops_of(inner)
    return total


@pytest.mark.parametrize("preset", ["pi05", "dummy"])
def test_flops_are_those_of_the_program(preset):
    for remat in (False, True):
        config = replace(configs.PRESETS[preset](), remat=remat)
        params, batch = shapes_of(config, 1)
        counted = plan.flops(policy.network(config), remat=remat)
        forward = flops_of(jax.make_jaxpr(loss_of(config))(params, *batch).jaxpr)
        whole = flops_of(jax.make_jaxpr(jax.grad(loss_of(config)))(params, *batch).jaxpr)
        assert counted.forward == pytest.approx(forward, rel=0.001)
        assert counted.executed == pytest.approx(whole, rel=0.005)


def test_frozen_matrices_have_no_gradient_to_compute():
    config = configs.pi05_lora()
    params, batch = shapes_of(config, 1)
    trains = tree.flatten(freeze.trained(config))
    flat = tree.flatten(params)
    frozen = {name: leaf for name, leaf in flat.items() if not trains[name]}

    def loss(trained, frozen, *batch):
        return loss_of(config)(tree.unflatten({**trained, **frozen}), *batch)

    moving = {name: leaf for name, leaf in flat.items() if trains[name]}
    whole = flops_of(jax.make_jaxpr(jax.grad(loss))(moving, frozen, *batch).jaxpr)
    assert plan.flops(policy.network(config), remat=True).executed == pytest.approx(whole, rel=0.005)


@pytest.mark.parametrize("remat", [True, False])
def test_the_working_set_is_what_xla_takes(remat):
    """Within a quarter of what XLA's CPU compiler says of a whole gradient in float32 (benchmarks/planner.md)."""
    config = replace(configs.dummy(), remat=remat)

    def taken(rows):
        params, batch = shapes_of(config, rows)
        compiled = jax.jit(jax.grad(loss_of(config))).lower(params, *batch).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    planned = policy.network(config)
    a_row = activations.kept_bytes(planned, remat=remat) + activations.working_bytes(planned, remat=remat)
    assert a_row == pytest.approx((taken(32) - taken(16)) / 16, rel=0.25)


def test_keys_and_values_of_the_prefix_are_the_networks_cache():
    config = configs.pi05()
    params, (inputs, *_) = shapes_of(config, 1)
    cache = jax.eval_shape(lambda p, i: network.prefix_cache(p, config, i), params, inputs)
    assert plan.serving(policy.network(config)).cache == size_bytes(cache.seen)
    # 18 layers, keys and values of one head of 256, of 3 x 256 patches and 200 tokens, in bfloat16.
    assert size_bytes(cache.seen) == 18 * 2 * 256 * 968 * 2
