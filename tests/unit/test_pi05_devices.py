"""A step of pi0.5 on eight devices: what they send to one another, and the losses of one device."""

from __future__ import annotations

import json
import re

import pytest
from test_policy_sharding import run_python

# Compiling takes most of the time, and neither result depends on how well the program is optimised.
ON_EIGHT = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
STEP = """
import json, pathlib, sys
import jax
import miniature_pi05 as miniature
import numpy as np
from robolift.policy import learning, sharding

folder = pathlib.Path(sys.argv[1])
words = miniature.tokenizer(folder)


def compiled(config, num, fsdp):
    settings = miniature.recipe(batch_size=40, num_devices=num, fsdp_devices=fsdp)
    learner = miniature.learner(config, settings)
    batch = miniature.rows(config, settings, words).batch(np.arange(40))
    mesh = sharding.make_mesh(num, fsdp)
    state, frozen = learner.template()
    # Cut the weights however small they are, or nothing would be cut in a test.
    places = sharding.state_shardings(state, mesh, smallest_bytes=0)
    step = learning.make_step(learner.objective, settings, learner.optimizer)
    with jax.set_mesh(mesh):
        jitted = jax.jit(step, in_shardings=(places, sharding.batch_sharding(mesh), {}), out_shardings=places)
        program = jitted.lower(state, batch, frozen).compile()
    return program, learner.begin(places, {})[0], jax.device_put(batch, sharding.batch_sharding(mesh))
"""
PROGRAM = "print(json.dumps(compiled(miniature.config(remat=True), 8, 4)[0].as_text()))"
LOSSES = """
found = []
for num, fsdp in ((1, 1), (8, 4)):
    step, state, batch = compiled(miniature.config(remat=True, dtype="bfloat16"), num, fsdp)
    sums = [0.0]
    for _ in range(4):
        state = step(state, batch, {})
        sums.append(float(state.loss_sum))
    found.append(np.diff(sums).tolist())
print(json.dumps(found))
"""
COLLECTIVE = r"= (.*?) (?:all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute)(?:-start)?\("


def test_devices_send_one_another_weights_and_no_activations_of_the_whole_batch(tmp_path):
    """What is sent does not grow with the batch: 40 rows, 20 of them for each copy of the weights, 5 on a device."""
    program = json.loads(run_python(STEP + PROGRAM, str(tmp_path), XLA_FLAGS=ON_EIGHT))
    sent = [shape for kinds in re.findall(COLLECTIVE, program) for shape in re.findall(r"f32\[([\d,]*)\]", kinds)]
    shapes = [tuple(map(int, filter(None, shape.split(",")))) for shape in sent]
    assert (16, 32) in shapes  # a matrix of a feed-forward layer, put together where it is used
    assert [shape for shape in shapes if any(length % 20 == 0 for length in shape)] == []


@pytest.mark.slow
def test_recomputed_layers_in_bfloat16_give_on_eight_devices_the_losses_of_one(tmp_path):
    one, eight = json.loads(run_python(STEP + LOSSES, str(tmp_path), XLA_FLAGS=ON_EIGHT))
    assert len(one) == 4
    assert one[3] < one[0]
    # bfloat16 has 8 bits: each device's share of a gradient is rounded before they are added up.
    assert eight == pytest.approx(one, rel=2**-6)
