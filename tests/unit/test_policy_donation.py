"""A step of a policy happens in place: the compiled program gives each array of the state its predecessor's memory."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
from toy_policies import SMALL, recipe, shape_of, two_modes

from robolift.policy import hosts, learning, sharding
from robolift.policy.loop import ChunkLearner, make_optimizer


def test_every_array_of_the_state_is_written_over_by_a_step():
    data, settings = two_modes(), recipe(objective="flow", steps=4)
    learner = ChunkLearner(SMALL, shape_of(data, "flow"), settings, jnp.asarray(data.bare), make_optimizer(settings))
    mesh = sharding.make_mesh(1, 1)
    template, frozen = learner.template()
    places, frozen_places = (sharding.state_shardings(tree, mesh) for tree in (template, frozen))
    rows = sharding.batch_sharding(mesh)
    advance = learning.compiled_step(learner, settings, (places, frozen_places), rows)
    state, _ = learner.begin(places, frozen_places)
    batch = hosts.put_rows(data.batch(np.arange(settings.batch_size)), rows, settings.batch_size)
    with jax.set_mesh(mesh):
        program = advance.lower(state, batch, {}).compile().as_text()
        after = advance(state, batch, {})
    leaves = jax.tree.leaves(state)
    header = next(line for line in program.splitlines() if "input_output_alias" in line)
    assert len(re.findall(r"\(\d+, \{\}, (?:may|must)-alias\)", header)) == len(leaves)
    assert all(leaf.is_deleted() for leaf in leaves)
    assert int(after.step) == 1
