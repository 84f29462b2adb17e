"""pi0.5 on eight devices, and on two machines: the losses of one. Handing over is in test_policy_resume_from.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from test_policy_hosts import finish, free_port, meeting
from test_policy_sharding import HERE, run_python

from robolift import storage

QUICK = "--xla_backend_optimization_level=0"
"""Compiling takes most of the time, and what is computed is not to depend on how well it was optimised."""

ON_EIGHT = """
import functools, json, pathlib, sys
import jax
import miniature_pi05 as miniature
from robolift.policy import learning, sharding
from robolift.policy.pi05.state_store import ShardedStore

# Cut the weights however small they are, or nothing would be cut in a test.
sharding.state_shardings = functools.partial(sharding.state_shardings, smallest_bytes=0)
folder = pathlib.Path(sys.argv[1])
words = miniature.tokenizer(folder)
config = miniature.config()


def losses(num, fsdp, store):
    settings = miniature.recipe(steps=10, log_every=1, save_every=5, num_devices=num, fsdp_devices=fsdp)
    learner = miniature.learner(config, settings)
    fitted = learning.run(learner, miniature.rows(config, settings, words), settings, store)
    return [row["loss"] for name in ("train", "validation") for row in fitted.curves[name]]


def handed_over(store):
    template = miniature.learner(config, miniature.recipe()).template()[0]
    meshes = [sharding.make_mesh(2, 2), sharding.make_mesh(1, 1)]
    two, one = (store.load(template, sharding.state_shardings(template, mesh))[0] for mesh in meshes)
    assert len(two.params["PaliGemma/llm/layers/mlp/gating_einsum"].sharding.device_set) == 2
    pairs = zip(jax.tree.leaves(two), jax.tree.leaves(one), strict=True)
    return int(two.step) if all((a == b).all() for a, b in jax.device_get(list(pairs))) else None


places = sharding.state_shardings(miniature.learner(config, miniature.recipe()).template()[0], sharding.make_mesh(8, 4))
cut = {name: place.spec != jax.sharding.PartitionSpec() for name, place in places.params.items()}
found = {
    "one": losses(1, 1, ShardedStore(str(folder / "one"))),
    "eight": losses(8, 4, ShardedStore(str(folder / "eight"))),
    "handed_over": handed_over(ShardedStore(str(folder / "eight"))),
    "cut": [name for name, is_cut in cut.items() if is_cut],
}
print(json.dumps(found))
"""


def test_eight_devices_give_the_losses_of_one(tmp_path):
    flags = f"--xla_force_host_platform_device_count=8 {QUICK}"
    found = json.loads(run_python(ON_EIGHT, str(tmp_path), XLA_FLAGS=flags))
    assert len(found["one"]) == 20
    assert found["eight"] == pytest.approx(found["one"], abs=1e-5)
    assert found["handed_over"] == 5
    assert "PaliGemma/llm/layers/mlp/gating_einsum" in found["cut"]


ON_MACHINES = """
import functools, json, pathlib, sys
import jax
from robolift.policy import hosts

hosts.join()
import miniature_pi05 as miniature
from robolift.policy import learning, sharding
from robolift.policy.pi05.state_store import ShardedStore

sharding.state_shardings = functools.partial(sharding.state_shardings, smallest_bytes=0)
folder = pathlib.Path(sys.argv[1])
own = folder / str(hosts.this_host().index)
own.mkdir(parents=True)
words = miniature.tokenizer(own)
config = miniature.with_updates(miniature.config())
settings = miniature.recipe(steps=4, log_every=2, save_every=3, num_devices=2, fsdp_devices=2)
learner, store = miniature.learner(config, settings), ShardedStore(sys.argv[2])
fits = [learning.run(learner, miniature.rows(config, settings, words), settings, store) for _ in range(2)]
losses = [[row["loss"] for name in ("train", "validation") for row in fit.curves[name]] for fit in fits]
print(json.dumps({"devices": jax.device_count(), "losses": losses, "names": len(learner.whole(fits[0].params))}))
"""


def start(folder, work, **environ):
    env = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "PJRT_NPROC")}
    env |= {"JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parents[1])]), **environ}
    command = [sys.executable, "-c", ON_MACHINES, str(folder), work]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.parametrize("in_bucket", [False, True])
def test_two_machines_learn_what_one_with_two_devices_learns_and_go_on_together(tmp_path, s3, in_bucket):
    places = {name: f"{s3}/{name}" if in_bucket else str(tmp_path / name / "work") for name in ("one", "two")}
    flags = f"--xla_force_host_platform_device_count=2 {QUICK}"
    alone = start(tmp_path / "one", places["one"], XLA_FLAGS=flags)
    told = meeting(free_port())
    pair = [start(tmp_path / "two", places["two"], PET_NODE_RANK=str(i), XLA_FLAGS=QUICK, **told) for i in range(2)]
    codes, ends = finish([alone, *pair])
    assert codes == [0, 0, 0], ends
    one, first, second = (json.loads(end[0].splitlines()[-1]) for end in ends)
    assert first == second
    assert one["devices"] == first["devices"] == 2
    # Each run went on once from its state after step 3.
    assert first["losses"][0] == first["losses"][1] == pytest.approx(one["losses"][0], abs=1e-5)
    assert storage.read_json(f"{places['two']}/latest.json")["step"] == 3
