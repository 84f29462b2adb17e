"""A policy that trains on two machines: two processes with a device each, as the pods of an indexed Job."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from loopback import free_port

from robolift import manifest, storage
from robolift.errors import UsageError
from robolift.policy.hosts import Host, this_host
from robolift.stages.stage import load_inputs, parse_config, plan

HERE = Path(__file__).parent
STATES = ["observation.state", "observation.environment_state"]
CONFIG = {
    "variant": "plain",
    "vision": "none",
    "state_keys": STATES,
    "objective": "regression",
    "steps": 300,
    "batch_size": 16,
    "log_every": 20,
    "save_every": 10,
    "val_fraction": 0.25,
    "num_devices": 2,
    "fsdp_devices": 2,
}


def meeting(port):
    return {"PET_NNODES": "2", "PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": str(port)}


@pytest.fixture
def hosts(dataset, tmp_path):
    """Start both processes of a job on an output root; whatever is left of them is killed at the end."""
    started = []

    def start(root, **config):
        job = tmp_path / f"{Path(root).name}.json"
        document = {"output_root": root, "inputs": {"dataset": dataset.uri}, "config": {**CONFIG, **config}}
        job.write_bytes(storage.to_json_bytes(document))
        port = free_port()
        pair = []
        for index in range(2):
            env = {
                **{name: value for name, value in os.environ.items() if name != "XLA_FLAGS"},
                "JAX_PLATFORMS": "cpu",
                **meeting(port),
                "PET_NODE_RANK": str(index),
            }
            command = [sys.executable, "-m", "robolift.launch.entry", "train_policy", "--config", str(job)]
            pair.append(
                subprocess.Popen(
                    command,
                    env=env,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    start_new_session=True,
                )
            )
        started.extend(pair)
        return pair

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # with the stage below it, which holds the pipes too
        process.communicate()


def finish(pair, timeout_s=900):
    ends = [process.communicate(timeout=timeout_s) for process in pair]
    return [process.returncode for process in pair], ends


def weights(root, dataset, **config):
    inputs = load_inputs("train_policy", {"dataset": dataset.uri})
    planned = plan("train_policy", parse_config("train_policy", {**CONFIG, **config}), inputs, root)
    return planned, lambda: storage.read_bytes(manifest.load(planned.uri).file("model.safetensors"))


@pytest.mark.slow
def test_two_machines_stopped_together_go_on_to_the_same_bytes(hosts, dataset, tmp_path):
    whole_root, stopped_root = str(tmp_path / "whole"), str(tmp_path / "stopped")
    codes, ends = finish(hosts(whole_root))
    assert codes == [0, 0], ends
    planned, whole = weights(whole_root, dataset)
    assert [end[0].splitlines()[-1] for end in ends] == [planned.uri, planned.uri]
    assert planned.finished().counts["steps"] == 300

    longer = weights(stopped_root, dataset)[0]
    pair = hosts(stopped_root)
    deadline = time.monotonic() + 120
    while not storage.exists(f"{longer.work_uri}/latest.json"):
        assert time.monotonic() < deadline, finish(pair)
        time.sleep(0.005)
    pair[1].send_signal(signal.SIGTERM)  # only one of them is told
    codes, ends = finish(pair)
    assert codes == [143, 143], ends
    step = storage.read_json(f"{longer.work_uri}/latest.json")["step"]
    assert 10 <= step < 300
    assert f"stopped after step {step}" in ends[0][1]

    codes, ends = finish(hosts(stopped_root))
    assert codes == [0, 0], ends
    assert weights(stopped_root, dataset)[1]() == whole()


CUT = """
import functools, json, sys
import jax
from robolift.policy import checkpoint, hosts, loop, sharding
from toy_policies import SMALL, recipe, shape_of, two_modes

hosts.join()
data = two_modes()
# Cut the weights however small they are, or nothing would be cut in a test.
sharding.state_shardings = functools.partial(sharding.state_shardings, smallest_bytes=0)
settings = recipe(steps=6, log_every=2, save_every=4, learning_rate=1e-3, num_devices=2, fsdp_devices=2)
store = checkpoint.StateStore(sys.argv[1])
fitted = loop.fit(SMALL, shape_of(data), data, settings, store)
losses = [row["loss"] for name in ("train", "validation") for row in fitted.curves[name]]
saved = checkpoint.read_tensors(store.file)
whole = {name: tensor.shape for name, tensor in checkpoint.flatten(fitted.params).items()}
same = all(saved[f".params.{name}".lstrip(".")].shape == shape for name, shape in whole.items())
print(json.dumps({"devices": jax.device_count(), "losses": losses, "step": int(saved["step"]), "whole": same}))
"""


def run_cut(work, **environ):
    """Start a process of :data:`CUT`."""
    env = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "PJRT_NPROC")}
    path = os.pathsep.join([str(HERE), str(HERE.parents[1])])
    return subprocess.Popen(
        [sys.executable, "-c", CUT, str(work)],
        env={**env, "JAX_PLATFORMS": "cpu", "PYTHONPATH": path, **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_weights_cut_over_two_machines_learn_what_those_of_one_with_two_devices_learn(tmp_path):
    alone = run_cut(tmp_path / "one", XLA_FLAGS="--xla_force_host_platform_device_count=2")
    told = meeting(free_port())
    pair = [run_cut(tmp_path / "two", PET_NODE_RANK=str(index), **told) for index in range(2)]
    codes, ends = finish([alone, *pair])
    assert codes == [0, 0, 0], ends
    one, first, second = (json.loads(end[0].splitlines()[-1]) for end in ends)
    assert first == second
    assert (one["devices"], first["devices"]) == (2, 2)
    assert (first["step"], first["whole"]) == (4, True)
    assert first["losses"] == pytest.approx(one["losses"], abs=1e-5)


TOLD = {"PET_NNODES": "4", "PET_NODE_RANK": "3", "PET_MASTER_ADDR": "j-0.j", "PET_MASTER_PORT": "23456"}


def test_who_a_process_is():
    assert this_host({}) == this_host({"PET_NNODES": "1", "PET_NODE_RANK": "0"}) == Host(0, 1)
    assert this_host(TOLD) == Host(3, 4)
    assert not this_host(TOLD).is_main


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"PET_NODE_RANK": "4"}, "expected a number below the other"),
        ({"PET_NODE_RANK": None}, "PET_NODE_RANK is ''"),
        ({"PET_NNODES": "all"}, "'all'"),
        ({"PET_MASTER_ADDR": None}, "PET_MASTER_ADDR is not set"),
    ],
)
def test_variables_that_do_not_fit_are_named(wrong, text):
    told = {**TOLD, **wrong}
    with pytest.raises(UsageError, match=text):
        this_host({name: value for name, value in told.items() if value is not None})
