"""Two nodes, each a network and host name of its own, train the value model as a PyTorchJob's pods would.

Command and environment come from the manifest that the launcher builds, and from what the training operator adds to it.
A process on one node is killed, then one node is told to stop; each time both pods end with 143, which makes the
operator start them anew, and the run ends in the weights of one that nothing disturbed.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import training_operator
from job_specs import spec

from robolift import manifest as manifests
from robolift import storage
from robolift.launch import pytorchjob
from robolift.stages import remote
from robolift.stages.stage import execute, load_inputs, parse_config, plan

CONFIG = {
    "cameras": [],
    "state_keys": ["observation.state"],
    "steps": 300,
    "batch_size": 32,
    "warmup_steps": 2,
    "save_every": 20,
    "log_every": 60,
    "eval_every": 120,
    "num_processes": 2,
}
BRIDGE_ADDRESS = "10.203.77.254/24"


def run(command):
    subprocess.run(command.split(), check=True, capture_output=True, text=True)


@pytest.fixture(scope="module")
def nodes():
    """Two network namespaces on one bridge: the names of the namespaces, and their addresses."""
    if os.geteuid() != 0 or not (shutil.which("ip") and shutil.which("unshare")):
        pytest.skip("needs root, ip and unshare to make two nodes")
    bridge = f"rl{os.getpid()}"
    names = [f"{bridge}n{index}" for index in range(2)]
    addresses = [f"10.203.77.{index + 1}" for index in range(2)]
    # A container engine may have told the kernel to forward nothing but its own traffic, bridges included.
    filtered = shutil.which("iptables") is not None
    rule = f"FORWARD -i {bridge} -o {bridge} -j ACCEPT"
    try:
        if filtered:
            run(f"iptables -w -I {rule}")
        run(f"ip link add {bridge} type bridge")
        run(f"ip addr add {BRIDGE_ADDRESS} dev {bridge}")
        run(f"ip link set {bridge} up")
        for index, (name, address) in enumerate(zip(names, addresses, strict=True)):
            run(f"ip netns add {name}")
            run(f"ip link add {bridge}v{index} type veth peer name eth0 netns {name}")
            run(f"ip link set {bridge}v{index} master {bridge} up")
            run(f"ip -n {name} addr add {address}/24 dev eth0")
            run(f"ip -n {name} link set eth0 up")
            run(f"ip -n {name} link set lo up")
            Path(f"/etc/netns/{name}").mkdir(parents=True)
        yield list(zip(names, addresses, strict=True))
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
            shutil.rmtree(f"/etc/netns/{name}", ignore_errors=True)
        subprocess.run(["ip", "link", "del", bridge], check=False, capture_output=True)
        if filtered:
            subprocess.run(["iptables", "-w", "-D", *rule.split()], check=False, capture_output=True)


def prepare(dataset, root):
    """Plan the stage and write its job as the launcher does; return the plan and the manifest."""
    targets = execute("label_returns", {}, {"dataset": dataset.uri}, str(Path(root).parent / "inputs"))
    inputs = load_inputs("train_value", {"dataset": dataset.uri, "targets": targets.uri})
    config = parse_config("train_value", CONFIG)
    planned = plan("train_value", config, inputs, root)
    launch = spec(processes_per_node=1).launch
    launch = type(launch).from_dict({**vars(launch), "placement": {**vars(launch.placement), "gpu_resource": ""}})
    num_nodes, gpus = remote.shape("train_value", config, launch)
    nowhere = SimpleNamespace(namespace="team")
    job = remote.job_spec(planned, launch, nowhere, nodes=num_nodes, gpus=gpus)
    remote.write_job(planned, CONFIG, inputs)
    return planned, pytorchjob.build(job)


def start(manifest, nodes, logs):
    """Start the pods of a job, one on each node."""
    pods = training_operator.pods(manifest)
    hosts = "".join(f"{address} {pod.name}\n" for pod, (_, address) in zip(pods, nodes, strict=True))
    processes = []
    for pod, (name, _) in zip(pods, nodes, strict=True):
        Path(f"/etc/netns/{name}/hosts").write_text(f"127.0.0.1 localhost\n{hosts}")
        inside = ["ip", "netns", "exec", name, "unshare", "--uts", "sh", "-c", 'hostname "$0"; exec "$@"', pod.name]
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        env = {"PATH": path, "OMP_NUM_THREADS": "1", **pod.env}
        with (logs / f"{pod.name}.log").open("a") as log:
            processes.append(subprocess.Popen([*inside, *pod.container["command"]], env=env, stdout=log, stderr=log))
    return processes


def finish(processes, logs):
    try:
        codes = [process.wait(200) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return codes, {path.name: path.read_text()[-3000:] for path in logs.glob("*.log")}


def saved_step(planned):
    latest = storage.join(planned.work_uri, "latest.json")
    return storage.read_json(latest)["step"] if storage.exists(latest) else 0


def wait_for_step(planned, beyond, processes, logs):
    deadline = time.monotonic() + 150
    while saved_step(planned) <= beyond:
        assert all(process.poll() is None for process in processes), finish(processes, logs)
        assert time.monotonic() < deadline, finish(processes, logs)
        time.sleep(0.01)
    return saved_step(planned)


def trainer_of(process):
    """Return the process that trains below a pod's first one: the last of the chain entry, stage, torchrun, worker."""
    pid = process.pid
    while children := Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        pid = int(children[0])
    return pid


@pytest.mark.slow
def test_a_killed_node_makes_both_pods_start_anew_and_the_weights_are_those_of_an_undisturbed_run(
    dataset, nodes, tmp_path
):
    logs = tmp_path / "logs"
    logs.mkdir()
    planned, manifest = prepare(dataset, str(tmp_path / "whole"))
    codes, said = finish(start(manifest, nodes, logs), logs)
    assert codes == [0, 0], said
    whole = manifests.load(planned.uri)

    planned, manifest = prepare(dataset, str(tmp_path / "killed"))
    pods = start(manifest, nodes, logs)
    first = wait_for_step(planned, 0, pods, logs)
    os.kill(trainer_of(pods[1]), signal.SIGKILL)
    codes, said = finish(pods, logs)
    assert codes == [143, 143], said
    assert first < 300

    pods = start(manifest, nodes, logs)
    second = wait_for_step(planned, saved_step(planned), pods, logs)
    pods[1].send_signal(signal.SIGTERM)
    codes, said = finish(pods, logs)
    assert codes == [143, 143], said
    assert second <= saved_step(planned) < 300

    codes, said = finish(start(manifest, nodes, logs), logs)
    assert codes == [0, 0], said
    ended = manifests.load(planned.uri)
    for name in ("model.safetensors", "curves.json", "checkpoint.json"):
        assert storage.read_bytes(ended.file(name)) == storage.read_bytes(whole.file(name)), name
    assert ended.digest == whole.digest
    assert not storage.exists(planned.work_uri)
