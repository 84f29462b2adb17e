"""The stage: from published inputs to a policy that acts, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import synthetic
from labelled import publish_dataset

from robolift import schema, storage
from robolift.data.dataset import Dataset
from robolift.data.split import split_episodes
from robolift.errors import DataError, UsageError
from robolift.labeling.prompts import prompt
from robolift.manifest import Manifest, Parent, load
from robolift.policy.checkpoint import STATE_FILE, load_policy, read_tensors
from robolift.policy.serving import Policy
from robolift.policy.train import Sources, encoder_held_out
from robolift.policy.vision import FrozenEncoder, read_features
from robolift.stages.acting import read_policy
from robolift.stages.offline import held_out_episodes
from robolift.stages.stage import execute, load_inputs, parse_config, plan

ROOT = Path(__file__).parents[2]
STATES = ["observation.state", "observation.environment_state"]
BLIND = {"vision": "none", "state_keys": STATES, "steps": 4, "batch_size": 16, "log_every": 2, "val_fraction": 0.25}
QUICK = {**BLIND, "objective": "regression", "steps": 1}
SEEING = {"steps": 4, "batch_size": 16, "objective": "regression"}
FILES = ("model.safetensors", "policy.json", "curves.json", "metrics.json")
NEGATIVE, POSITIVE = (prompt(synthetic.TASK, label) for label in ("negative", "positive"))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return str(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def chain(dataset, root) -> dict[str, Manifest]:
    """Every input of a policy that sees, made by the stages before it."""
    targets = execute("label_returns", {}, {"dataset": dataset.uri}, root)
    tiny = {"image_size": [32, 32], "steps": 2, "batch_size": 8, "warmup_steps": 1, "shift_px": 2}
    learned = {"dataset": dataset.uri, "targets": targets.uri}
    checkpoint = execute("train_value", tiny, learned, root)
    shard = execute("predict_values", {}, {"dataset": dataset.uri, "checkpoint": checkpoint.uri}, root)
    values = execute("merge_values", {}, {"shards": [shard.uri], "dataset": dataset.uri}, root)
    given = {"dataset": dataset.uri, "targets": targets.uri, "values": values.uri}
    labels = execute("label_advantage", {"lookahead": 8}, given, root)
    return {"dataset": dataset, "labels": labels, "values": values, "checkpoint": checkpoint}


def train(config, chain, root, *names):
    return execute("train_policy", config, {name: chain[name].uri for name in ("dataset", *names)}, root)


def contents(found):
    return {name: storage.read_bytes(found.file(name)) for name in FILES if storage.exists(found.file(name))}


def test_variants_have_one_number_of_weights_and_differ_in_what_they_are_taught(chain, root):
    made = {
        variant: train({**QUICK, "variant": variant}, chain, root, "labels")
        for variant in ("plain", "filtered", "advantage", "shuffled")
    }
    measured = {variant: found.metrics() for variant, found in made.items()}
    # Prompts 3 * 16, first layer (25 + 16 + 1) * 256, two hidden ones 257 * 256, output 257 * 8 * 4.
    assert {m["num_weights"] for m in measured.values()} == {48 + 42 * 256 + 2 * 257 * 256 + 257 * 32}
    by_prompt = {variant: m["frames_by_prompt"] for variant, m in measured.items()}
    assert list(by_prompt["plain"]) == [synthetic.TASK, NEGATIVE, POSITIVE]
    for variant in ("plain", "filtered"):
        assert by_prompt[variant][NEGATIVE] == by_prompt[variant][POSITIVE] == 0
        assert by_prompt[variant][synthetic.TASK] == made[variant].counts["frames"]
    assert by_prompt["advantage"][POSITIVE] > 0
    assert by_prompt["advantage"][NEGATIVE] > 0
    assert sum(by_prompt["advantage"].values()) == made["plain"].counts["frames"]
    assert made["plain"].counts["episodes"] == 6
    assert made["filtered"].counts["episodes"] < 6
    assert {m["held_out_episodes"] for m in measured.values()} == {2}
    weights = {variant: contents(found)["model.safetensors"] for variant, found in made.items()}
    assert len(set(weights.values())) == 4


def test_every_variant_takes_slices(chain, root):
    given = {name: chain[name].uri for name in ("dataset", "values")}
    targets = execute("label_returns", {}, {"dataset": given["dataset"]}, root)
    sliced = {"lookahead": 8, "scheme": "slices", "num_slices": 3, "weight": "rabc"}
    labels = execute("label_advantage", sliced, {**given, "targets": targets.uri}, root)
    texts = [synthetic.TASK, *(prompt(synthetic.TASK, number) for number in range(3))]
    bare, *slices = texts
    asked = {"plain": [bare], "weighted": [bare], "advantage": slices, "shuffled": slices}
    made = {}
    for variant in asked:
        config = {**QUICK, "variant": variant, "label_dropout": 0}
        made[variant] = train(config, {**chain, "labels": labels}, root, "labels")
        policy = Policy.load(made[variant].uri)
        assert policy.spec.prompts.prompts == tuple(texts)
        assert list(policy.prompts.prompts) == asked[variant], variant
        assert policy.spec.bare_prompts == (0, 0, 0, 0)
    counts = {variant: found.metrics()["frames_by_prompt"] for variant, found in made.items()}
    assert min(counts["advantage"][text] for text in slices) > 0
    assert counts["plain"] == counts["weighted"]
    assert len({contents(found)["model.safetensors"] for found in made.values()}) == 4
    guided = train({**QUICK, "label_dropout": 0.3}, {**chain, "labels": labels}, root, "labels")
    assert Policy.load(guided.uri).prompts.prompts == tuple(texts)


def test_the_output_says_what_was_trained(chain, root):
    found = train({**BLIND, "variant": "advantage"}, chain, root, "labels")
    assert found.kind == "PolicyCheckpoint"
    assert found.counts["steps"] == 4
    curves = json.loads(contents(found)["curves.json"])
    assert [row["step"] for row in curves["train"]] == [2, 4]
    assert [row["step"] for row in curves["validation"]] == [2, 4]
    assert found.metrics()["train_loss"] == curves["train"][-1]["loss"]
    assert found.metrics()["val_loss"] == curves["validation"][-1]["loss"]
    spec = load_policy(found.uri)[0]
    assert (spec.variant, spec.steps, spec.fps, spec.execute) == ("advantage", 4, 20.0, 4)
    assert spec.trained_prompts == (0, 1, 2)  # the bare task through label dropout
    assert spec.state_dims == (8, 17)
    outcome = np.array(chain["dataset"].table("episodes").column("outcome").to_pylist())
    assert spec.held_out_episodes == tuple(split_episodes(outcome, 0.25, 0)[1])


def test_nothing_is_measured_where_nothing_is_held_out(chain, root):
    found = train({**QUICK, "val_fraction": 0}, chain, root, "labels")
    assert load_policy(found.uri)[0].held_out_episodes == ()
    assert "val_loss" not in found.metrics()


def test_a_policy_that_sees_holds_out_what_its_encoder_did(chain, root):
    """Whatever its own fraction and seed: the encoder was trained to predict the actions of all other episodes."""
    theirs = storage.read_json(chain["checkpoint"].file("checkpoint.json"))["held_out_episodes"]
    assert len(theirs) == 1
    for variant in ("advantage", "filtered"):
        for seed in (0, 1):
            config = {**SEEING, "steps": 1, "variant": variant, "seed": seed, "val_fraction": 0.5}
            found = train(config, chain, root, "labels", "values", "checkpoint")
            assert list(load_policy(found.uri)[0].held_out_episodes) == theirs
            assert found.metrics()["held_out_episodes"] == 1
            opened = Dataset.open(chain["dataset"])
            own = read_policy(found).held_out_episodes
            assert list(held_out_episodes(found, chain["dataset"], opened, own)) == theirs


def test_the_bare_task_is_trained_only_where_labels_are_dropped(chain, root):
    found = train({**QUICK, "label_dropout": 0, "val_fraction": 0}, chain, root, "labels")
    assert load_policy(found.uri)[0].trained_prompts == (1, 2)


def test_without_labels_the_table_is_that_of_the_tasks(chain, root):
    policy = Policy.load(train({**QUICK, "variant": "plain"}, chain, root).uri)
    assert policy.spec.prompts.prompts == (synthetic.TASK, NEGATIVE, POSITIVE)
    assert policy.prompts.prompts == (synthetic.TASK,)


def test_a_policy_that_sees_acts_on_images(chain, root):
    found = train(SEEING, chain, root, "labels", "values", "checkpoint")
    opened = Dataset.open(chain["dataset"])
    policy = Policy.load(found.uri)
    assert policy.cameras == (synthetic.BEHIND, synthetic.TOPVIEW)
    assert policy.image_size == (32, 32)
    images = {camera: np.stack(list(opened.video(0, camera))[:3]) for camera in policy.cameras}
    state = opened.column("observation.state", [0])[:3]
    observation = {**images, "observation.state": state}
    actions = policy.act(observation, prompts=[POSITIVE] * 3, seed=0)
    assert actions.shape == (3, 8, 4)
    assert np.isfinite(actions).all()
    blind = {camera: np.zeros_like(frames) for camera, frames in images.items()}
    other = policy.act({**observation, **blind}, prompts=[POSITIVE] * 3, seed=0)
    assert np.abs(other - actions).max() > 1e-4


def test_the_policy_carries_the_value_model_s_encoder(chain, root):
    found = train(SEEING, chain, root, "labels", "values", "checkpoint")
    own, theirs = (
        {n: t for n, t in load_file(made).items() if n.startswith("encoder.")} for made in (found, chain["checkpoint"])
    )
    assert own.keys() == theirs.keys()
    assert all((own[name] == theirs[name]).all() for name in own)


def load_file(found):
    return read_tensors(found.file("model.safetensors"))


def test_an_encoder_of_another_dataset_decides_where_the_two_share_recordings(chain, root, tmp_path):
    synthetic.write_recording(tmp_path / "more", episodes=3, frames=8, seed=5)
    config = {"dataset_uri": str(tmp_path / "more")}
    alone = execute("import_dataset", config, {}, root)
    grown = execute("import_dataset", config, {"previous": chain["dataset"].uri}, root)
    frozen = FrozenEncoder.load(chain["checkpoint"].uri)

    def held_out(dataset):
        sources = Sources(dataset=dataset, checkpoint=chain["checkpoint"])
        return encoder_held_out(frozen, sources, Dataset.open(dataset))

    assert held_out(grown).tolist() == held_out(chain["dataset"]).tolist() == list(frozen.held_out_episodes)
    assert held_out(alone) is None

    # The other way round: a policy of other recordings whose encoder knows these.
    policy = train({**QUICK, "variant": "plain"}, {"dataset": alone}, root)
    parents = {**policy.inputs, "checkpoint": [Parent(uri=chain["checkpoint"].uri, digest=chain["checkpoint"].digest)]}
    opened = Dataset.open(chain["dataset"])
    assert len(held_out_episodes(policy, chain["dataset"], opened, ())) == opened.num_episodes
    sees = dataclasses.replace(policy, config={**policy.config, "vision": "frozen"}, inputs=parents)
    with pytest.raises(UsageError, match="would be measured on what it knows"):
        held_out_episodes(sees, chain["dataset"], opened, ())


def test_missing_inputs_are_named(chain, root):
    with pytest.raises(UsageError, match="train_policy needs input labels for variant shuffled"):
        train({**BLIND, "variant": "shuffled"}, chain, root)
    with pytest.raises(UsageError, match="train_policy needs input values for vision frozen"):
        train(SEEING, chain, root, "labels", "checkpoint")
    with pytest.raises(UsageError, match="train_policy needs input checkpoint for vision frozen"):
        train(SEEING, chain, root, "labels", "values")
    with pytest.raises(UsageError, match="train_policy needs input dataset"):
        execute("train_policy", BLIND, {}, root)


def test_labels_of_another_dataset_are_refused(chain, root, tmp_path):
    other = publish_dataset(str(tmp_path), [5, 5], outcome=["success", "failure"])
    with pytest.raises(UsageError, match="input labels was made from another dataset") as refused:
        train(BLIND, {**chain, "dataset": other}, root, "labels")
    assert chain["dataset"].uri in str(refused.value)
    assert other.uri in str(refused.value)


def test_other_cameras_than_the_encoder_s_are_refused(chain, root):
    with pytest.raises(DataError, match=f"cameras are {synthetic.TOPVIEW}"):
        train({**SEEING, "cameras": [synthetic.TOPVIEW]}, chain, root, "labels", "values", "checkpoint")


def test_features_of_another_checkpoint_are_refused(chain, root):
    tiny = {"image_size": [32, 32], "steps": 2, "batch_size": 4, "warmup_steps": 1, "shift_px": 2, "seed": 7}
    targets = execute("label_returns", {}, {"dataset": chain["dataset"].uri}, root)
    other = execute("train_value", tiny, {"dataset": chain["dataset"].uri, "targets": targets.uri}, root)
    with pytest.raises(DataError, match="the features are not those of this checkpoint's encoder"):
        train(SEEING, {**chain, "checkpoint": other}, root, "labels", "values", "checkpoint")


def test_features_of_a_jpeg_cache_are_those_of_its_pixels(chain, root):
    view = {"size": [32, 32], "format": "jpeg", "quantizer": 31, "num_workers": 1}
    cache = execute("pack_frames", view, {"dataset": chain["dataset"].uri}, root)
    given = {"dataset": chain["dataset"].uri, "checkpoint": chain["checkpoint"].uri, "frames": cache.uri}
    shard = execute("predict_values", {}, given, root)
    values = execute("merge_values", {}, {"shards": [shard.uri], "dataset": chain["dataset"].uri}, root)
    opened, frozen = Dataset.open(chain["dataset"]), FrozenEncoder.load(chain["checkpoint"].uri)
    features = read_features(values, opened, frozen)
    assert np.abs(features - read_features(chain["values"], opened, frozen)).max() > 1e-3
    shutil.copy(values.file("features.parquet").removeprefix("file://"), root)
    with pytest.raises(DataError, match="the features are not those of this checkpoint's encoder"):
        read_features(dataclasses.replace(chain["values"], uri=root), opened, frozen)


def test_values_without_features_are_refused(chain, root):
    given = {"dataset": chain["dataset"].uri, "checkpoint": chain["checkpoint"].uri}
    shard = execute("predict_values", {"save_features": False}, given, root)
    values = execute("merge_values", {}, {"shards": [shard.uri], "dataset": chain["dataset"].uri}, root)
    with pytest.raises(DataError, match="the values have no image features"):
        train(SEEING, {**chain, "values": values}, root, "labels", "values", "checkpoint")


def test_features_that_are_not_numbers_are_refused(chain, tmp_path):
    uri = chain["values"].file("features.parquet")
    table = schema.read_parquet(uri)
    rows = table.column("features").to_pylist()
    rows[9][3] = float("nan")
    spoilt = table.set_column(2, table.schema.field("features"), pa.array(rows, table.schema.field("features").type))
    schema.write_table(tmp_path / "features.parquet", spoilt)
    values = dataclasses.replace(chain["values"], uri=str(tmp_path))
    with pytest.raises(DataError, match="features are not finite"):
        read_features(values, Dataset.open(chain["dataset"]), FrozenEncoder.load(chain["checkpoint"].uri))


def test_a_damaged_checkpoint_is_refused(chain, tmp_path):
    document = storage.read_json(chain["checkpoint"].file("checkpoint.json"))
    del document["encoder"]
    (tmp_path / "checkpoint.json").write_text(json.dumps(document))
    with pytest.raises(DataError, match="not a value model's checkpoint: KeyError"):
        FrozenEncoder.load(str(tmp_path))


def test_a_value_model_with_towers_gives_no_encoder_and_says_what_to_do(tmp_path):
    document = {"preset": "pi05", "cameras": ["top"], "image_size": [224, 224], "model": {"vision": {"width": 1152}}}
    (tmp_path / "checkpoint.json").write_text(json.dumps(document))
    with pytest.raises(DataError, match=r"preset pi05 has towers(.|\n)*vision: none or a preset of pi0.5"):
        FrozenEncoder.load(str(tmp_path))


def test_a_checkpoint_that_does_not_say_what_it_held_out_is_refused(chain, tmp_path):
    document = storage.read_json(chain["checkpoint"].file("checkpoint.json"))
    del document["held_out_episodes"]
    (tmp_path / "checkpoint.json").write_text(json.dumps(document))
    with pytest.raises(DataError, match="does not say which episodes it held out"):
        FrozenEncoder.load(str(tmp_path))


def test_a_checkpoint_without_cameras_gives_no_encoder(chain, root):
    targets = execute("label_returns", {}, {"dataset": chain["dataset"].uri}, root)
    config = {"cameras": [], "state_keys": STATES, "steps": 2, "batch_size": 4, "warmup_steps": 1}
    blind = execute("train_value", config, {"dataset": chain["dataset"].uri, "targets": targets.uri}, root)
    with pytest.raises(DataError, match="the value model has no cameras"):
        train(SEEING, {**chain, "checkpoint": blind}, root, "labels", "values", "checkpoint")


def test_the_same_inputs_give_the_same_bytes_in_another_root(chain, root, tmp_path):
    first = train(SEEING, chain, root, "labels", "values", "checkpoint")
    again = train(SEEING, chain, str(tmp_path / "elsewhere"), "labels", "values", "checkpoint")
    assert first.uri != again.uri
    assert first.digest == again.digest
    assert contents(first) == contents(again)
    assert {"model.safetensors", "policy.json", "curves.json"} <= contents(first).keys()


def test_how_often_a_state_is_saved_is_no_part_of_the_identity(chain, root):
    uris = {name: chain[name].uri for name in ("dataset", "labels")}
    loaded = load_inputs("train_policy", uris)
    digests = [
        plan("train_policy", parse_config("train_policy", {**BLIND, **changes}), loaded, root).digest
        for changes in ({}, {"save_every": 7, "profile": 5}, {"seed": 1})
    ]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.slow  # in few steps tests/e2e/test_kill.py tries it with every stage
def test_killed_and_run_again_it_ends_with_the_same_bytes(chain, root, tmp_path):
    config = {**BLIND, "objective": "regression", "steps": 120, "save_every": 20, "log_every": 50}
    whole = train(config, chain, root, "labels")
    inputs = {name: chain[name].uri for name in ("dataset", "labels")}
    file = tmp_path / "train.json"  # JSON is YAML
    file.write_text(json.dumps({"output_root": str(tmp_path / "runs"), "inputs": inputs, "config": config}))
    command = [sys.executable, "-m", "robolift", "train_policy", "--config", str(file)]

    # Killed at its first write after it has saved a state.
    moment = {"KILL_ROOT": str(tmp_path / "runs"), "KILL_STAGE": "train_policy", "KILL_AT": f"resumable:{STATE_FILE}"}
    env = {**os.environ, "PYTHONPATH": str(ROOT / "tests" / "e2e" / "kill_hook"), **moment}
    first = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=200)
    assert first.returncode == -signal.SIGKILL, first.stderr
    assert len(list((tmp_path / "runs").rglob(STATE_FILE))) == 1
    assert not list((tmp_path / "runs").rglob("manifest.json"))

    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=200)
    assert again.returncode == 0, again.stderr
    resumed = [json.loads(line) for line in again.stderr.splitlines() if '"resumed"' in line]
    assert len(resumed) == 1
    assert 20 <= resumed[0]["step"] < 120
    assert contents(load(again.stdout.strip())) == contents(whole)
    assert not list((tmp_path / "runs").rglob(STATE_FILE))  # what a rerun goes on from is removed at the end
