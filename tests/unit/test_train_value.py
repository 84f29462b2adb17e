from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from loopback import free_port

from robolift import manifest, storage
from robolift.errors import DataError, UsageError
from robolift.stages import joint_output
from robolift.stages.stage import execute, load_inputs, parse_config, plan

ROOT = Path(__file__).parents[2]
STATE = {"cameras": [], "state_keys": ["observation.state", "observation.environment_state"], "val_fraction": 0.25}
PIXELS = {"image_size": [32, 32], "val_fraction": 0.25, "shift_px": 2}
LAUNCH_VARIABLES = (
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "NPROC_PER_NODE",
    "MASTER_ADDR",
    "MASTER_PORT",
    "PET_NNODES",
    "PET_NODE_RANK",
)


@pytest.fixture(scope="module")
def targets(dataset, tmp_path_factory):
    return execute("label_returns", {}, {"dataset": dataset.uri}, str(tmp_path_factory.mktemp("targets")))


@pytest.fixture
def inputs(dataset, targets):
    return {"dataset": dataset.uri, "targets": targets.uri}


def contents(found):
    return {
        name: storage.read_bytes(found.file(name)) for name in ("model.safetensors", "checkpoint.json", "curves.json")
    }


def start(config, inputs, root, file, **environ):
    """Start the stage as a user does, in a process group of its own."""
    file.write_text(yaml.safe_dump({"output_root": str(root), "inputs": inputs, "config": config}))
    command = [sys.executable, "-m", "robolift", "train_value", "--config", str(file)]
    clean = {key: value for key, value in os.environ.items() if key not in LAUNCH_VARIABLES}
    with file.with_suffix(".log").open("w") as log:
        environ = {**clean, **environ}
        return subprocess.Popen(command, cwd=ROOT, env=environ, stdout=log, stderr=log, start_new_session=True)


def wait_for_state(config, inputs, root, process):
    """Wait until a running stage has saved a state; return its folder."""
    planned = plan("train_value", parse_config("train_value", config), load_inputs("train_value", inputs), str(root))
    work = storage.local_path(planned.work_uri)
    deadline = time.monotonic() + 280
    while not (work / "latest.json").exists():
        assert process.poll() is None, "the stage ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return planned


def test_the_output_is_a_checkpoint_with_measures(inputs, output_root):
    config = {**PIXELS, "steps": 6, "batch_size": 8, "warmup_steps": 1, "eval_every": 3, "log_every": 2}
    found = execute("train_value", config, inputs, output_root)
    assert found.kind == "ValueCheckpoint"
    assert found.counts == {"steps": 6, "episodes": 8}
    document = json.loads(contents(found)["checkpoint.json"])
    assert document["cameras"] == ["observation.images.behindGripper", "observation.images.topview"]
    assert document["tasks"] == ["push the square to the goal"]
    measured = found.metrics()
    assert measured["train_step"] == measured["val_step"] == 6
    assert measured["val_loss"] > 0
    assert {"val_spearman", "val_outcome_auc", "train_value_loss", "train_action_loss"} <= measured.keys()
    assert b"20" + b"26-" not in contents(found)["curves.json"]  # steps and numbers, no times


def test_a_recording_lies_beside_the_output(inputs, output_root):
    config = {**STATE, "steps": 5, "batch_size": 8, "warmup_steps": 1, "profile": 1}
    planned = plan("train_value", parse_config("train_value", config), load_inputs("train_value", inputs), output_root)
    execute("train_value", config, inputs, output_root)
    assert [name for name, _ in storage.list_files(planned.profile_uri)] == ["torch.pt.trace.json.gz"]


def test_how_states_are_saved_is_no_part_of_the_identity_and_what_changes_bits_is(inputs, output_root):
    loaded = load_inputs("train_value", inputs)
    digests = [
        plan("train_value", parse_config("train_value", changes), loaded, output_root).digest
        for changes in (
            *({}, {"save_every": 7}, {"save_in_background": False}, {"profile": 5}),
            *({"num_processes": 2}, {"threads": 2}, {"compile": True}, {"fused_optimizer": True}),
        )
    ]
    assert len(set(digests[:4])) == 1
    assert len(set(digests)) == 5


def test_a_run_killed_for_good_and_started_again_gives_the_same_bytes(inputs, output_root, tmp_path):
    config = {**PIXELS, "steps": 60, "batch_size": 16, "save_every": 5, "warmup_steps": 2, "eval_every": 20}
    whole = execute("train_value", config, inputs, str(tmp_path / "whole"))
    process = start(config, inputs, output_root, tmp_path / "run.yaml")
    planned = wait_for_state(config, inputs, output_root, process)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert planned.finished() is None
    saved = storage.read_json(storage.join(planned.work_uri, "latest.json"))["step"]
    assert 0 < saved < 60
    resumed = execute("train_value", config, inputs, output_root)
    assert contents(resumed) == contents(whole)
    assert not storage.exists(planned.work_uri)


def descendants(pid):
    children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return children + [below for child in children for below in descendants(child)]


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


TOGETHER = {
    **STATE,
    "steps": 300,
    "batch_size": 32,
    "save_every": 20,
    "log_every": 60,
    "eval_every": 120,
    "num_processes": 2,
}


@pytest.fixture(scope="module")
def by_pods(dataset, targets, tmp_path_factory):
    """The addresses that two pods of a job printed, each given what a PyTorchJob's or TrainJob's operator sets."""
    folder, port = tmp_path_factory.mktemp("pods"), free_port()
    inputs = {"dataset": dataset.uri, "targets": targets.uri}
    job = {
        "PET_NNODES": "2",
        "PET_NPROC_PER_NODE": "1",
        "PET_MASTER_ADDR": "127.0.0.1",
        "PET_MASTER_PORT": str(port),
    }
    pods = [
        start(TOGETHER, inputs, folder / "runs", folder / f"pod-{rank}.yaml", PET_NODE_RANK=str(rank), **job)
        for rank in (0, 1)
    ]
    codes = [pod.wait(280) for pod in pods]
    logs = [(folder / f"pod-{rank}.log").read_text() for rank in (0, 1)]
    assert codes == [0, 0], logs
    return [log.split("\n")[-2] for log in logs]


def test_the_pods_of_a_job_train_together_and_one_publishes(by_pods, inputs, tmp_path):
    assert len(set(by_pods)) == 1  # both name the one output
    found = manifest.load(by_pods[0])
    manifest.verify(found)
    assert found.counts == {"steps": 300, "episodes": 8}
    alone = execute("train_value", {**TOGETHER, "num_processes": 1}, inputs, str(tmp_path))
    one, two = (json.loads(contents(output)["curves.json"])["train"][0] for output in (alone, found))
    assert two["loss"] == pytest.approx(one["loss"], rel=1e-3)  # the same rows and noise, added in another order
    assert contents(alone)["model.safetensors"] != contents(found)["model.safetensors"]


def test_two_processes_killed_and_started_again_give_the_bytes_of_the_pods(by_pods, inputs, output_root, tmp_path):
    process = start(TOGETHER, inputs, output_root, tmp_path / "run.yaml")
    planned = wait_for_state(TOGETHER, inputs, output_root, process)
    workers = descendants(process.pid)
    assert len(workers) == 3  # torchrun's agent and two processes
    process.kill()
    process.wait()
    deadline = time.monotonic() + 60
    while any(alive(pid) for pid in workers):
        assert time.monotonic() < deadline, "a process outlived the stage that started it"
        time.sleep(0.05)
    assert planned.finished() is None
    assert storage.read_json(storage.join(planned.work_uri, "latest.json"))["step"] < 300
    resumed = execute("train_value", TOGETHER, inputs, output_root)
    assert contents(resumed) == contents(manifest.load(by_pods[0]))


def test_waiting_for_a_main_process_that_never_publishes_ends(inputs, output_root, monkeypatch):
    planned = plan("train_value", parse_config("train_value", {}), load_inputs("train_value", inputs), output_root)
    monkeypatch.setattr(joint_output, "PUBLISH_TIMEOUT_S", 0.2)
    monkeypatch.setattr(joint_output, "POLL_S", 0.05)
    with pytest.raises(TimeoutError, match="was not published"):
        joint_output.wait_for(planned)


def test_targets_of_another_dataset_are_refused(inputs, output_root, tmp_path):
    import synthetic

    synthetic.write_recording(tmp_path / "other", episodes=4, cameras=())
    other = execute("import_dataset", {"dataset_uri": str(tmp_path / "other")}, {}, output_root)
    with pytest.raises(DataError, match="run label_returns on this dataset"):
        execute("train_value", {}, {**inputs, "dataset": other.uri}, output_root)


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"cameras": ["observation.images.wrist"]}, r"no observation\.images\.wrist in the dataset; it has"),
        ({"preset": "huge"}, "there are: tiny"),
        ({"batch_size": 5, "num_processes": 2}, r"train_value\.config: .*can't be shared"),
        ({"learning_rat": 1}, r"train_value\.learning_rat"),
    ],
)
def test_a_wrong_call_is_a_usage_error_before_any_work(inputs, output_root, config, text):
    with pytest.raises(UsageError, match=text):
        execute("train_value", config, inputs, output_root)


def test_help_needs_no_torch():
    code = "import sys, robolift.__main__ as r; r.main(['train_value', '--describe']); print('torch' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert shown.strip().endswith("False")
    assert "Peak of the learning rate" in shown
