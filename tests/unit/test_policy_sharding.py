"""Training on several devices: where arrays lie, and that the loss is the one of a single device."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh, PartitionSpec

from robolift.errors import UsageError
from robolift.policy import sharding

HERE = Path(__file__).parent
ON_TWO = """
import functools, json, sys
import jax
from robolift.policy import loop, sharding
from robolift.policy.checkpoint import StateStore
from toy_policies import SMALL, recipe, shape_of, two_modes

data = two_modes()
# Cut the weights however small they are, or nothing would be cut in a test.
sharding.state_shardings = functools.partial(sharding.state_shardings, smallest_bytes=0)
losses, cut = {}, {}
for num, fsdp in ((1, 1), (2, 1), (2, 2)):
    settings = recipe(steps=4, log_every=2, learning_rate=1e-3, num_devices=num, fsdp_devices=fsdp)
    fitted = loop.fit(SMALL, shape_of(data), data, settings, StateStore(sys.argv[1]))
    losses[f"{num} {fsdp}"] = [row["loss"] for name in ("train", "validation") for row in fitted.curves[name]]
    mesh = sharding.make_mesh(num, fsdp)
    placed = jax.device_put(fitted.params, sharding.state_shardings(fitted.params, mesh))
    cut[f"{num} {fsdp}"] = placed["output"]["kernel"].addressable_shards[0].data.shape
print(json.dumps({"devices": jax.device_count(), "losses": losses, "cut": cut}))
"""


def run_python(source, *arguments, **environ):
    """Run ``source`` in a process of its own, which has not started JAX yet, and return the last line it prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", source, *arguments],
        env={
            **{name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "PJRT_NPROC")},
            "JAX_PLATFORMS": "cpu",
            "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parents[1])]),
            **environ,
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def test_two_devices_give_the_loss_of_one(tmp_path):
    # Compiling takes most of the time, and what is computed is not to depend on how well it was optimised.
    flags = "--xla_force_host_platform_device_count=2 --xla_backend_optimization_level=0"
    found = json.loads(run_python(ON_TWO, str(tmp_path / "work"), XLA_FLAGS=flags))
    assert found["devices"] == 2
    alone = found["losses"]["1 1"]
    assert len(alone) == 4
    assert found["losses"]["2 1"] == pytest.approx(alone, abs=1e-5)
    assert found["losses"]["2 2"] == pytest.approx(alone, abs=1e-5)
    assert found["cut"] == {"1 1": [32, 1], "2 1": [32, 1], "2 2": [16, 1]}


def placed(shape, fsdp, dtype=np.float32, **settings):
    mesh = AbstractMesh((1, fsdp), (sharding.BATCH_AXIS, sharding.FSDP_AXIS))
    return sharding.state_shardings({"w": jax.ShapeDtypeStruct(shape, dtype)}, mesh, **settings)["w"].spec


def test_large_arrays_are_cut_along_their_largest_axis_that_divides():
    large = 4 << 20
    assert placed((1024, 1024), 2) == PartitionSpec("fsdp", None)  # 4 MiB to the byte
    assert placed((1024, 1023), 2) == PartitionSpec()  # just below
    assert placed((1024, 2048), 4) == PartitionSpec(None, "fsdp")
    assert placed((1024, 2047), 4) == PartitionSpec("fsdp", None)
    assert placed((1023, 2047), 4) == PartitionSpec()  # nothing divides
    assert placed((large,), 2) == PartitionSpec()  # one axis
    assert placed((1024, 1024), 1) == PartitionSpec()  # one device a copy
    assert placed((1024, 1024), 2, np.float16) == PartitionSpec()  # 2 MiB
    assert placed((3, 4, 6), 2, smallest_bytes=0) == PartitionSpec(None, None, "fsdp")


def test_rows_of_a_batch_are_spread_over_all_devices():
    mesh = sharding.make_mesh(1, 1)
    assert dict(mesh.shape) == {"batch": 1, "fsdp": 1}
    assert sharding.batch_sharding(mesh).spec == PartitionSpec(("batch", "fsdp"))
    assert sharding.replicated(mesh).spec == PartitionSpec()
    with pytest.raises(UsageError, match=r"num_devices is 3, this machine has 1 \(cpu\)"):
        sharding.make_mesh(3, 1)


ON_SOME_CORES = """
import hashlib, os, sys, tempfile
os.sched_setaffinity(0, {int(core) for core in sys.argv[1].split()})
import jax, numpy as np
from robolift.policy import loop
from robolift.policy.checkpoint import StateStore
from robolift.policy.presets import tiny
from toy_policies import recipe, shape_of, two_modes

# Matrices as large as those of a real run: XLA leaves small ones to one thread anyhow.
data, settings = two_modes(1000), recipe(steps=3, batch_size=256)
with tempfile.TemporaryDirectory() as folder:
    fitted = loop.fit(tiny(), shape_of(data, "regression"), data, settings, StateStore(folder))
weights = b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(fitted.params))
print(len(os.sched_getaffinity(0)), hashlib.sha256(weights).hexdigest())
"""


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_the_number_of_cores_does_not_change_a_bit():
    cores = sorted(os.sched_getaffinity(0))
    found = [run_python(ON_SOME_CORES, " ".join(map(str, some))).split() for some in (cores[:1], cores[:2])]
    assert [number for number, _ in found] == ["1", "2"]
    assert found[0][1] == found[1][1]


def test_what_the_user_told_xla_stays():
    tell = "import os, robolift.policy.xla; print(os.environ['PJRT_NPROC'], os.environ['XLA_FLAGS'])"
    assert run_python(tell, XLA_FLAGS="--other=1") == "1 --other=1 --xla_gpu_deterministic_ops=true"
    chosen = "--xla_gpu_deterministic_ops=false"
    assert run_python(tell, XLA_FLAGS=chosen, PJRT_NPROC="4") == f"4 {chosen}"
