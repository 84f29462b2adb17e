"""pi0.5 on eight devices: the losses of one, and a run that goes on with another number of them."""

from __future__ import annotations

import json

import pytest
from test_policy_sharding import run_python

ON_EIGHT = """
import functools, json, pathlib, sys
import jax
import miniature_pi05 as miniature
from robolift.policy import learning, sharding
from robolift.policy.checkpoint import StateStore

# Cut the weights however small they are, or nothing would be cut in a test.
sharding.state_shardings = functools.partial(sharding.state_shardings, smallest_bytes=0)
folder = pathlib.Path(sys.argv[1])
words = miniature.tokenizer(folder)
config = miniature.config()


class Killed(StateStore):
    def save(self, tree, document, *, step):
        super().save(tree, document, step=step)
        raise KeyboardInterrupt


def losses(num, fsdp, store):
    settings = miniature.recipe(steps=10, log_every=1, save_every=5, num_devices=num, fsdp_devices=fsdp)
    learner = miniature.learner(config, settings)
    try:
        fitted = learning.run(learner, miniature.rows(config, settings, words), settings, store)
    except KeyboardInterrupt:
        return None
    return [row["loss"] for name in ("train", "validation") for row in fitted.curves[name]]


places = sharding.state_shardings(miniature.learner(config, miniature.recipe()).template()[0], sharding.make_mesh(8, 4))
cut = {name: place.spec != jax.sharding.PartitionSpec() for name, place in places.params.items()}
found = {
    "one": losses(1, 1, StateStore(str(folder / "one"))),
    "eight": losses(8, 4, StateStore(str(folder / "eight"))),
    "killed": losses(8, 8, Killed(str(folder / "moved"))),
    "moved": losses(2, 2, StateStore(str(folder / "moved"))),
    "cut": [name for name, is_cut in cut.items() if is_cut],
}
print(json.dumps(found))
"""


def test_eight_devices_give_the_losses_of_one_and_hand_over_to_two(tmp_path):
    # Compiling takes most of the time, and what is computed is not to depend on how well it was optimised.
    flags = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
    found = json.loads(run_python(ON_EIGHT, str(tmp_path), XLA_FLAGS=flags))
    assert len(found["one"]) == 20
    assert found["eight"] == pytest.approx(found["one"], abs=1e-5)
    assert found["killed"] is None
    assert found["moved"] == pytest.approx(found["one"], abs=1e-5)
    assert "PaliGemma/llm/layers/mlp/gating_einsum" in found["cut"]
