"""pi0.5 as a trained policy: made by the stage, loaded from its folder, asked for actions, and what it refuses."""

from __future__ import annotations

import hashlib
import json
import sys

import jax
import miniature_pi05 as miniature
import numpy as np
import pytest
import synthetic
from tiny_tokenizer import tiny_tokenizer

from robolift import storage
from robolift.data.models import CACHE_VARIABLE
from robolift.errors import DataError, UsageError
from robolift.policy.normalize import Normalizer
from robolift.policy.pi05 import policy_files, tree
from robolift.policy.server.prompt_rule import PromptLabel
from robolift.policy.server.served import ServedPolicy
from robolift.policy.serving import Policy
from robolift.stages.acting import read_policy
from robolift.stages.stage import execute, load_inputs, parse_config, plan

CONFIG = miniature.config()
POSITIVE, NEGATIVE = "fold, Advantage: positive", "fold, Advantage: negative"
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module", autouse=True)
def quick_compiling():
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    words = miniature.tokenizer(tmp_path_factory.mktemp("words"))
    return miniature.rows(CONFIG, miniature.recipe(label_dropout=0.3), words)


@pytest.fixture(scope="module")
def params():
    """Weights under which text and pictures reach the actions, as fresh ones don't let them."""
    flat = tree.flatten(miniature.learner(CONFIG, miniature.recipe()).whole({}))
    rng = np.random.default_rng(0)
    for name, weight in flat.items():
        if name.endswith(("Dense_0/kernel", "img/head/kernel")):
            flat[name] = rng.normal(0, 0.3, weight.shape).astype(np.float32)
    return tree.unflatten(flat)


def save(folder, data, params, **changes):
    action = Normalizer(np.array([10], np.float32), np.array([2], np.float32))
    spec = miniature.spec_of(data, CONFIG, action=action, **changes)
    policy_files.save(folder, spec, params, tiny_tokenizer())
    return str(folder)


@pytest.fixture(scope="module")
def uri(tmp_path_factory, data, params):
    return save(tmp_path_factory.mktemp("policy"), data, params)


@pytest.fixture(scope="module")
def policy(uri):
    return Policy.load(uri)


def observe(rows=2):
    rng = np.random.default_rng(3)
    return {
        "topview": rng.integers(0, 256, (rows, 20, 30, 3), dtype=np.uint8),
        "observation.state": rng.uniform(-1, 1, (rows, 3)).astype(np.float32),
    }


def test_a_policy_survives_its_folder(uri, params, tmp_path, data):
    spec, loaded, _ = policy_files.load(uri)
    for name, weight in tree.flatten(params).items():
        assert np.array_equal(tree.flatten(loaded)[name], weight), name
    save(tmp_path, data, loaded)
    for name in (WEIGHTS, "policy.json", "tokenizer.model"):
        assert (tmp_path / name).read_bytes() == storage.read_bytes(f"{uri}/{name}"), name
    assert spec.cameras == ("topview",)
    document = storage.read_json(f"{uri}/policy.json")
    assert (document["preset"], document["camera_keys"]) == ("dummy", {"base_0_rgb": "topview"})
    assert document["prompt_format"]["format"] == "kai0"
    assert document["prompt_format"]["tokenizer"] == data.formatter.encoder.digest


def test_weights_of_a_published_policy_are_copied_from_a_store_once(uri, params, tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    stored = "memory://published"
    for name in (WEIGHTS, "policy.json", "tokenizer.model"):
        storage.write_bytes(f"{stored}/{name}", storage.read_bytes(f"{uri}/{name}"))
    digest = hashlib.sha256(storage.read_bytes(f"{uri}/{WEIGHTS}")).hexdigest()
    storage.write_bytes(f"{stored}/files.json", storage.to_json_bytes({WEIGHTS: {"sha256": digest}}))
    policy_files.load(stored)
    storage.write_bytes(f"{stored}/{WEIGHTS}", b"not read again")
    flat = tree.flatten(policy_files.load(stored)[1])
    assert all(np.array_equal(flat[name], weight) for name, weight in tree.flatten(params).items())


def test_without_sentencepiece_it_is_said_what_to_install(uri, monkeypatch):
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(UsageError, match=r"mend: pip install 'robolift\[full\]'"):
        Policy.load(uri)


def test_label_picture_and_state_reach_the_actions_and_a_row_is_by_itself(policy):
    observation = observe()
    both = policy.act(observation, prompts=[POSITIVE, NEGATIVE], seed=[7, 7])
    assert both.shape == (2, 1, 1)
    assert both.dtype == np.float32
    first = {key: array[:1] for key, array in observation.items()}
    alone = policy.act(first, prompts=[POSITIVE], seed=[7])
    assert alone.tobytes() == both[:1].tobytes()
    for changed in (
        policy.act(first, prompts=[NEGATIVE], seed=[7]),
        policy.act({**first, "topview": 255 - first["topview"]}, prompts=[POSITIVE], seed=[7]),
        policy.act({**first, "observation.state": -first["observation.state"]}, prompts=[POSITIVE], seed=[7]),
        policy.act(first, prompts=[POSITIVE], seed=[8]),
    ):
        assert np.abs(changed - alone).max() > 1e-4


def test_it_is_served_pictures_of_any_size(policy):
    served = ServedPolicy(policy, checkpoint="0" * 64, label=PromptLabel.POSITIVE, guidance=1.0)
    served.warm_up()
    assert (served.metadata["preset"], served.metadata["image_size"]) == ("dummy", None)
    seen = {key: array[0] for key, array in observe(1).items()}
    task = "fold"
    (asked,) = policy.act(observe(1), prompts=[served.metadata["prompts"][task]], seed=[7])
    np.testing.assert_array_equal(served.infer({**seen, "prompt": task, "seed": 7})["actions"], asked)


def test_guidance_1_is_the_conditional_policy_and_0_the_bare_one(policy):
    observation = observe()

    def act(prompt, guidance):
        return policy.act(observation, prompts=[prompt] * 2, seed=[1, 2], guidance=guidance)

    assert act(POSITIVE, 1 + 1e-6) == pytest.approx(act(POSITIVE, 1.0), abs=1e-3)
    assert act(POSITIVE, 0.0) == pytest.approx(act("fold", 1.0), abs=1e-4)


def test_what_was_not_trained_or_is_not_seen_is_refused(policy, data, params, tmp_path):
    observation = observe()
    with pytest.raises(UsageError, match="unknown prompt 'fold it'"):
        policy.act(observation, prompts=["fold it"] * 2, seed=0)
    only = Policy.load(save(tmp_path / "only", data, params, trained_prompts=(2,)))
    with pytest.raises(UsageError, match="unknown prompt 'fold, Advantage: negative'"):
        only.act(observation, prompts=[NEGATIVE] * 2, seed=0)
    with pytest.raises(UsageError, match="but the bare prompt 'fold' was not trained"):
        only.act(observation, prompts=[POSITIVE] * 2, seed=0, guidance=2.0)
    with pytest.raises(DataError, match="the observation has no topview"):
        policy.act({"observation.state": observation["observation.state"]}, prompts=[POSITIVE] * 2, seed=0)
    wrong = {**observation, "topview": observation["topview"][..., :1]}
    with pytest.raises(DataError, match=r"topview is uint8 \(2, 20, 30, 1\)") as refused:
        policy.act(wrong, prompts=[POSITIVE] * 2, seed=0)
    assert "uint8 (2, any, any, 3)" in str(refused.value)


def test_another_tokenizer_in_the_folder_is_refused(data, params, tmp_path):
    uri = save(tmp_path, data, params)
    (tmp_path / "tokenizer.model").write_bytes(tiny_tokenizer(bos_id=4))
    with pytest.raises(DataError, match="the tokenizer has the digest"):
        Policy.load(uri)
    (tmp_path / "tokenizer.model").write_bytes(tiny_tokenizer(1000))
    with pytest.raises(DataError, match="the tokenizer has 1000 pieces"):
        Policy.load(uri)


@pytest.fixture(scope="module")
def settings(tokenizer_uri):
    return {
        "preset": "dummy",
        "variant": "plain",
        "steps": 2,
        "batch_size": 4,
        "log_every": 1,
        "val_fraction": 0.25,
        "tokenizer": tokenizer_uri,
        "camera_keys": {"base_0_rgb": synthetic.TOPVIEW},
        "max_token_len": 64,
    }


def test_the_stage_trains_a_policy_that_is_evaluated(dataset, settings, tmp_path):
    given = {"dataset": dataset.uri}
    made = execute("train_policy", settings, given, str(tmp_path))
    facts = read_policy(made)
    assert (facts.cameras, facts.image_size, facts.action_dim) == ((synthetic.TOPVIEW,), None, 4)
    assert (facts.action_horizon, facts.execute, facts.trained_prompts) == (4, 2, (synthetic.TASK,))
    curves = json.loads(storage.read_bytes(made.file("curves.json")))
    assert [row["step"] for row in curves["train"]] == [row["step"] for row in curves["validation"]] == [1, 2]
    assert made.metrics()["num_weights"] == 570_152
    measured = execute(
        "evaluate_policy", {"mode": "offline", "stride": 10}, {**given, "policy": made.uri}, str(tmp_path)
    )
    assert measured.metrics()["conditions"]["none"]["action_mse"] > 0


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"tokenizer_sha256": "0" * 64}, DataError, "the tokenizer's file has the SHA-256"),
        ({"max_token_len": 16}, DataError, r"the prompt has \d+ tokens"),
        ({"camera_keys": {"base_0_rgb": "side"}}, DataError, "the dataset has no camera side"),
        ({"frozen": [".*"]}, UsageError, "leaves no weight to train"),
        ({"preset": "pi05"}, DataError, "the tokenizer has 1024 pieces"),
    ],
)
def test_what_cannot_be_trained_is_refused(dataset, settings, tmp_path, changes, error, text):
    with pytest.raises(error, match=text):
        execute("train_policy", {**settings, **changes}, {"dataset": dataset.uri}, str(tmp_path))


def test_another_tokenizer_at_the_same_address_is_another_policy(dataset, settings, tmp_path):
    path = tmp_path / "words.model"
    inputs = load_inputs("train_policy", {"dataset": dataset.uri})
    digests = []
    for content in (tiny_tokenizer(), tiny_tokenizer(bos_id=4)):
        path.write_bytes(content)
        config = parse_config("train_policy", {**settings, "tokenizer": str(path)})
        digests.append(plan("train_policy", config, inputs, str(tmp_path)).digest)
    assert digests[0] != digests[1]
