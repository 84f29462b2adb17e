"""Going on from the training state of another run: with another number of devices, and what is refused."""

from __future__ import annotations

import json
import os
import signal

import pytest
import synthetic
from test_policy_sharding import run_python

from robolift import storage
from robolift.errors import UsageError
from robolift.policy.checkpoint import StateStore
from robolift.stages.stage import execute, load_inputs, parse_config, plan
from robolift.training.stopping import TrainingStoppedError

STATES = ["observation.state", "observation.environment_state"]
QUICK = {
    "variant": "plain",
    "vision": "none",
    "state_keys": STATES,
    "objective": "regression",
    "steps": 4,
    "batch_size": 8,
    "log_every": 1,
    "save_every": 2,
    "val_fraction": 0.25,
}


def planned(dataset, root, **config):
    inputs = load_inputs("train_policy", {"dataset": dataset.uri})
    return plan("train_policy", parse_config("train_policy", {**QUICK, **config}), inputs, root)


def train(dataset, root, **config):
    return execute("train_policy", {**QUICK, **config}, {"dataset": dataset.uri}, root)


@pytest.fixture(scope="module")
def stopped(dataset, tmp_path_factory):
    """Where a run that was told to stop after step 2 keeps its state; it did after step 3."""
    root, save = str(tmp_path_factory.mktemp("stopped")), StateStore.save

    def told_to_stop(self, tree, document, *, step):
        save(self, tree, document, step=step)
        if step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StateStore, "save", told_to_stop)
        with pytest.raises(TrainingStoppedError, match="stopped after step 3"):
            train(dataset, root)
    return planned(dataset, root).work_uri


def test_a_run_goes_on_from_another_s_state_and_leaves_it(dataset, stopped, tmp_path, output_root):
    whole = train(dataset, output_root)
    before = storage.list_files(stopped)
    went_on = train(dataset, str(tmp_path / "other"), resume_from=stopped)
    # As many devices as that run had: the same bytes.
    for name in ("model.safetensors", "curves.json"):
        assert storage.read_bytes(went_on.file(name)) == storage.read_bytes(whole.file(name)), name
    assert storage.list_files(stopped) == before
    # Another number of them would have given other last bits, and the identity says so.
    assert went_on.digest != whole.digest
    assert not storage.exists(planned(dataset, str(tmp_path / "other"), resume_from=stopped).work_uri)


def test_where_a_state_lies_does_not_count(dataset, stopped, tmp_path):
    for name, _ in storage.list_files(stopped):
        storage.write_bytes(str(tmp_path / "copy" / name), storage.read_bytes(f"{stopped}/{name}"))
    digests = {planned(dataset, "r", resume_from=uri).digest for uri in (stopped, str(tmp_path / "copy"))}
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"steps": 5}, r"its config\.steps is 4, here 5 \(1 differ"),
        ({"seed": 1, "steps": 5}, r"its config\.seed is 0, here 1 \(2 differ"),
    ],
)
def test_the_state_of_another_training_is_refused(dataset, stopped, output_root, changes, text):
    with pytest.raises(UsageError, match=text):
        train(dataset, output_root, resume_from=stopped, **changes)


def test_where_there_is_no_state(dataset, tmp_path, output_root):
    with pytest.raises(UsageError, match="no training state at"):
        train(dataset, output_root, resume_from=str(tmp_path))


ON_EIGHT = """
import functools, json, os, signal, sys
import miniature_pi05
from robolift import storage
from robolift.policy import sharding
from robolift.policy.pi05.config import PRESETS
from robolift.policy.pi05.state_store import ShardedStore
from robolift.stages.stage import execute, load_inputs, parse_config, plan
from robolift.training.stopping import TrainingStoppedError

PRESETS["dummy"] = miniature_pi05.config
# Cut the weights however small they are, or nothing would be cut in a test.
sharding.state_shardings = functools.partial(sharding.state_shardings, smallest_bytes=0)
given, root, settings = {"dataset": sys.argv[1]}, sys.argv[2], json.loads(sys.argv[3])
save = ShardedStore.save


def told_to_stop(self, tree, document, *, step):
    save(self, tree, document, step=step)
    if step == 2:
        os.kill(os.getpid(), signal.SIGTERM)


def losses(**devices):
    made = execute("train_policy", {**settings, **devices}, given, root)
    curves = storage.read_json(made.file("curves.json"))
    return [row["loss"] for row in curves["train"]]


on_eight = {"num_devices": 8, "fsdp_devices": 4}
planned = plan(
    "train_policy", parse_config("train_policy", {**settings, **on_eight}), load_inputs("train_policy", given), root
)
work = planned.work_uri
ShardedStore.save = told_to_stop
try:
    losses(**on_eight)
except TrainingStoppedError:
    at = storage.read_json(storage.join(work, "latest.json"))["step"]
ShardedStore.save = save
found = {"at": at, "one": losses(), "moved": losses(num_devices=4, fsdp_devices=2, resume_from=work)}
print(json.dumps(found))
"""


@pytest.mark.slow
def test_pi05_stopped_on_eight_devices_goes_on_with_four(dataset, tokenizer_uri, output_root):
    settings = {
        "preset": "dummy",
        "variant": "plain",
        "steps": 4,
        "batch_size": 8,
        "log_every": 1,
        "save_every": 2,
        "val_fraction": 0,
        "tokenizer": tokenizer_uri,
        "camera_keys": {"base_0_rgb": synthetic.TOPVIEW},
        "max_token_len": 64,
    }
    flags = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
    found = json.loads(run_python(ON_EIGHT, dataset.uri, output_root, json.dumps(settings), XLA_FLAGS=flags))
    assert found["at"] == 3
    assert len(found["one"]) == 4
    assert found["moved"] == pytest.approx(found["one"], abs=1e-5)
