"""The stage with heads that learn progress: killed and resumed, in several processes, on several machines."""

from __future__ import annotations

import json
import signal

import numpy as np
import pytest
import safetensors.numpy
from loopback import free_port
from test_train_value import LAUNCH_VARIABLES, start, wait_for_state

from robolift import manifest, storage
from robolift.errors import DataError, UsageError
from robolift.stages.stage import execute, load_inputs, parse_config, plan
from robolift.value_model import checkpoint as checkpoints

HEADS = ("distribution", "relative", "single")
PIXELS = {"image_size": [32, 32], "val_fraction": 0.25, "shift_px": 2}
QUICK = {**PIXELS, "steps": 6, "batch_size": 8, "warmup_steps": 1, "eval_every": 3, "log_every": 2}


@pytest.fixture(scope="module")
def targets(dataset, tmp_path_factory):
    return execute("label_returns", {}, {"dataset": dataset.uri}, str(tmp_path_factory.mktemp("targets")))


@pytest.fixture
def inputs_for(dataset, targets):
    def inputs(head):
        return {"dataset": dataset.uri, **({"targets": targets.uri} if head == "distribution" else {})}

    return inputs


def contents(found):
    """Every file of an output but its manifest, which says where it lies."""
    names = [name for name, _ in storage.list_files(found.uri) if name != "manifest.json"]
    return {name: storage.read_bytes(found.file(name)) for name in names}


def tensors(found, name):
    return safetensors.numpy.load(storage.read_bytes(found.file(name)))


@pytest.mark.parametrize("head", ["relative", "single"])
def test_the_output_says_how_it_compares_with_constants(inputs_for, output_root, head):
    found = execute("train_value", {**QUICK, "head": head}, inputs_for(head), output_root)
    assert found.kind == "ValueCheckpoint"
    measured = found.metrics()
    assert measured["val_uniform_constant_loss"] == {"relative": 1 / 6, "single": 1 / 12}[head]
    assert 0 < measured["val_constant_loss"] < 0.25
    assert measured["val_loss"] > 0
    assert {"val_spearman", "val_episode_spearman", "train_value_loss"} <= measured.keys()


def test_every_so_many_steps_a_checkpoint_is_kept_that_predicts(inputs_for, dataset, output_root):
    config = {**QUICK, "head": "relative", "keep_every": 2, "save_every": 5}
    found = execute("train_value", config, inputs_for("relative"), output_root)
    manifest.verify(found)
    files = ("assets/checkpoint.json", "assets/recipe.json", "metadata.json", "model.safetensors")
    expected = [f"checkpoints/{step}/{name}" for step in (2, 4, 6) for name in (*files, "optimizer.safetensors")]
    assert [name for name in contents(found) if name.startswith("checkpoints/")] == expected
    metadata = storage.read_json(found.file("checkpoints/4/metadata.json"))
    assert (metadata["step"], [row["step"] for row in metadata["curves"]["train"]]) == (4, [2, 4])
    assert storage.read_json(found.file("checkpoints/4/assets/checkpoint.json"))["step"] == 4
    recipe = storage.read_json(found.file("checkpoints/4/assets/recipe.json"))
    assert (recipe["head"], recipe["seed"], recipe["batch_size"]) == ("relative", 0, 8)
    state = tensors(found, "checkpoints/4/optimizer.safetensors")
    groups = {name.partition(".")[0] for name in state}
    assert groups == {"model", "mean", "square"}
    # The last one kept is what training ended with.
    last = storage.read_bytes(found.file("checkpoints/6/model.safetensors"))
    assert last == storage.read_bytes(found.file("model.safetensors"))
    earlier = checkpoints.load(found.uri, 4)
    assert earlier[1].step == 4
    assert not np.array_equal(
        earlier[0].value_head.weight.numpy(), checkpoints.load(found.uri)[0].value_head.weight.numpy()
    )
    given = {"dataset": dataset.uri, "checkpoint": found.uri}
    values = [execute("predict_values", {"step": step}, given, output_root).table("values") for step in (4, None)]
    assert values[0].column("value") != values[1].column("value")
    assert values[0].column("relative_advantage").null_count == 0
    with pytest.raises(UsageError, match=r"no checkpoint of step 3 was kept in .*; there are: 2, 4, 6"):
        execute("predict_values", {"step": 3}, given, output_root)


def test_without_a_wish_no_checkpoint_is_kept(inputs_for, dataset, output_root):
    found = execute("train_value", {**QUICK, "head": "single", "save_every": 2}, inputs_for("single"), output_root)
    assert set(contents(found)) == {
        "checkpoint.json",
        "curves.json",
        "files.json",
        "metrics.json",
        "model.safetensors",
    }
    with pytest.raises(UsageError, match="there are: none; train_value's keep_every is 0"):
        execute("predict_values", {"step": 2}, {"dataset": dataset.uri, "checkpoint": found.uri}, output_root)


@pytest.mark.parametrize("head", HEADS)
def test_a_run_killed_for_good_and_started_again_gives_the_same_bytes(inputs_for, output_root, tmp_path, head):
    config = {**PIXELS, "head": head, "steps": 60, "batch_size": 16, "warmup_steps": 2, "eval_every": 20}
    config |= {"save_every": 5, "keep_every": 20, "log_every": 7}
    # How often a state is saved changes nothing, not even in the checkpoints that are kept.
    whole = execute("train_value", {**config, "save_every": 100}, inputs_for(head), str(tmp_path / "whole"))
    process = start(config, inputs_for(head), output_root, tmp_path / "run.yaml")
    planned = wait_for_state(config, inputs_for(head), output_root, process)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert planned.finished() is None
    assert 0 < storage.read_json(storage.join(planned.work_uri, "latest.json"))["step"] < 60
    resumed = execute("train_value", config, inputs_for(head), output_root)
    assert contents(resumed) == contents(whole)
    assert len(contents(whole)) == 5 + 3 * 5
    assert not storage.exists(planned.work_uri)


TOGETHER = {**PIXELS, "steps": 20, "warmup_steps": 5, "learning_rate": 3e-4, "keep_every": 20, "eval_every": 20}


@pytest.mark.parametrize("head", HEADS)
def test_two_processes_with_half_the_batch_each_end_where_one_does(inputs_for, tmp_path, head):
    one, two = (
        execute(
            "train_value",
            {**TOGETHER, "head": head, "batch_size": 16, "num_processes": number},
            inputs_for(head),
            str(tmp_path),
        )
        for number in (1, 2)
    )
    alone, together = (tensors(found, "checkpoints/20/optimizer.safetensors") for found in (one, two))
    for name, weights in alone.items():
        if name.startswith("model."):
            assert np.abs(weights - together[name]).max() < 1e-5, name
    alone, together = tensors(one, "model.safetensors"), tensors(two, "model.safetensors")
    assert max(np.abs(alone[name] - together[name]).max() for name in alone) < 1e-5
    for mine, theirs in zip(*(json.loads(contents(f)["curves.json"])["validation"] for f in (one, two)), strict=True):
        assert mine == pytest.approx(theirs, abs=1e-5)


SPREAD = {**TOGETHER, "head": "relative", "cameras": [], "batch_size": 8, "num_processes": 2}


@pytest.fixture(scope="module")
def spread_here(dataset, tmp_path_factory):
    """What two processes on this machine give."""
    found = execute("train_value", SPREAD, {"dataset": dataset.uri}, str(tmp_path_factory.mktemp("here")))
    return contents(found)


def test_machines_given_kai0_s_variables_train_together(inputs_for, spread_here, tmp_path):
    job = {"WORLD_SIZE": "2", "NPROC_PER_NODE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    machines = [
        start(SPREAD, inputs_for("relative"), tmp_path / "runs", tmp_path / f"machine-{rank}.yaml", RANK=rank, **job)
        for rank in ("0", "1")
    ]
    codes = [machine.wait(280) for machine in machines]
    logs = [(tmp_path / f"machine-{rank}.log").read_text() for rank in (0, 1)]
    assert codes == [0, 0], logs
    assert len({log.split("\n")[-2] for log in logs}) == 1  # both name the one output
    found = manifest.load(logs[0].split("\n")[-2])
    manifest.verify(found)
    assert contents(found) == spread_here


def test_one_machine_given_kai0_s_variables_starts_its_processes(inputs_for, spread_here, tmp_path, monkeypatch):
    for name in LAUNCH_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MASTER_PORT", str(free_port()))
    monkeypatch.setenv("NPROC_PER_NODE", "3")
    with pytest.raises(UsageError, match="are 3 processes, and num_processes is 2"):
        execute("train_value", SPREAD, inputs_for("relative"), str(tmp_path))
    monkeypatch.setenv("NPROC_PER_NODE", "2")
    assert contents(execute("train_value", SPREAD, inputs_for("relative"), str(tmp_path))) == spread_here


def test_rollouts_that_nobody_annotated_can_be_predicted_but_not_trained_on(inputs_for, tmp_path):
    import synthetic

    synthetic.write_recording(tmp_path / "new", episodes=4, omit=("stage_progress_gt",), seed=9)
    new = execute("import_dataset", {"dataset_uri": str(tmp_path / "new")}, {}, str(tmp_path))
    with pytest.raises(DataError, match=r"no column stage_progress_gt(.|\n)*predict the rest"):
        execute("train_value", {**QUICK, "head": "relative"}, {"dataset": new.uri}, str(tmp_path))
    trained = execute("train_value", {**QUICK, "head": "relative"}, inputs_for("relative"), str(tmp_path))
    shards = [
        execute(
            "predict_values",
            {"shard": shard, "num_shards": 2, "lookahead": 10},
            {"dataset": new.uri, "checkpoint": trained.uri},
            str(tmp_path),
        )
        for shard in (0, 1)
    ]
    merged = execute(
        "merge_values", {}, {"dataset": new.uri, "shards": [shard.uri for shard in shards]}, str(tmp_path)
    ).table("values")
    assert merged.column("relative_advantage").null_count == 0
    value, frame = merged.column("value").to_numpy(), merged.column("frame_index").to_numpy()
    assert (value[frame == 0] == 0).all()
    assert -1 <= value.min() < value.max() <= 1


def test_a_head_and_its_targets_must_fit(inputs_for, targets, output_root):
    with pytest.raises(UsageError, match="head relative learns column stage_progress_gt: leave input targets out"):
        execute("train_value", {"head": "relative"}, {**inputs_for("relative"), "targets": targets.uri}, output_root)
    with pytest.raises(UsageError, match="give input targets, the output of label_returns"):
        execute("train_value", {}, inputs_for("relative"), output_root)
    with pytest.raises(UsageError, match=r"train_value\.head: .*'distribution', 'relative' or 'single'"):
        execute("train_value", {"head": "pair"}, inputs_for("relative"), output_root)


def test_keeping_checkpoints_is_part_of_the_identity_and_saving_states_is_not(inputs_for, output_root):
    loaded = load_inputs("train_value", inputs_for("single"))
    digests = [
        plan("train_value", parse_config("train_value", {"head": "single", **changes}), loaded, output_root).digest
        for changes in ({}, {"save_every": 7}, {"keep_every": 7}, {"head": "relative"})
    ]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3
