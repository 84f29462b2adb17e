"""The training state of two machines: each writes its own parts, to a disk they share or to a store."""

from __future__ import annotations

import os
import subprocess
import sys

from test_policy_hosts import finish, free_port, meeting
from test_policy_sharding import HERE

from robolift import storage

ON_TWO = """
import sys
from robolift.policy import hosts, sharding

hosts.join()
import jax
import jax.numpy as jnp
import numpy as np
from robolift.policy.pi05.state_store import ShardedStore

form = {"cut": jax.ShapeDtypeStruct((8, 6), jnp.float32), "step": jax.ShapeDtypeStruct((), jnp.int32)}
places = sharding.state_shardings(form, sharding.make_mesh(2, 2), smallest_bytes=0)
assert places["cut"].spec == jax.sharding.PartitionSpec("fsdp", None)
change = jax.jit(lambda tree: jax.tree.map(lambda x: x * 3, tree), donate_argnums=0, out_shardings=places)
whole = np.arange(48, dtype=np.float32).reshape(8, 6)
for uri in sys.argv[1:]:
    store = ShardedStore(uri)
    store.tidy()
    assert store.load(form, places) is None
    for step in (1, 2):
        tree = hosts.put({"cut": whole * step, "step": np.int32(step)}, places)
        store.save(tree, {"step": step}, step=step)
        change(tree)
    store.close()
    tree, document = store.load(form, places)
    store.close()
    assert (document, int(tree["step"])) == ({"step": 2}, 2)
    assert np.array_equal(hosts.to_host(tree)["cut"], whole * 2)
print("both are right")
"""


def test_two_machines_write_and_read_one_state(s3, tmp_path):
    uris = [f"{s3}/work", str(tmp_path / "work")]
    told = meeting(free_port())
    path = os.pathsep.join([str(HERE), str(HERE.parents[1])])
    kept = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "PJRT_NPROC")}
    pair = [
        subprocess.Popen(
            [sys.executable, "-c", ON_TWO, *uris],
            env={**kept, "JAX_PLATFORMS": "cpu", "PYTHONPATH": path, "PET_NODE_RANK": str(rank), **told},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    codes, ends = finish(pair)
    assert codes == [0, 0], ends
    for uri in uris:
        names = [name for name, _ in storage.list_files(uri)]
        assert {name.split("/")[0] for name in names} == {"latest.json", "states"}
        assert {name.split("/")[1] for name in names if name.startswith("states/")} == {"2"}
        # Neither machine wrote what the other holds.
        assert {name.rsplit("/", 1)[1] for name in names if "array_metadatas" in name} == {"process_0", "process_1"}
    assert {"states/2/cut/0.0", "states/2/cut/1.0"} <= {name for name, _ in storage.list_files(uris[0])}
