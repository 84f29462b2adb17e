"""Weights and tokenizer that a policy is trained from: their content counts, wherever it lies, whenever it is read."""

from __future__ import annotations

import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
import synthetic
from safetensors.numpy import load_file, save_file
from tiny_tokenizer import VOCABULARY, tiny_tokenizer

from robolift import storage
from robolift.data.models import CACHE_VARIABLE, model_digest
from robolift.errors import DataError, UsageError
from robolift.policy import learning
from robolift.policy.pi05 import weights
from robolift.policy.pi05.config import dummy
from robolift.policy.pi05.tree import names_and_shapes, unflatten
from robolift.stages.stage import execute, load_inputs, parse_config, plan

OPENPI = Path(__file__).parents[1] / "fixtures/pi05_openpi"
FROZEN = "PaliGemma/img/embedding/kernel"


@pytest.fixture(scope="module", autouse=True)
def quick_compiling():
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A folder with weights of the dummy and a tokenizer."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    config, rng = dummy(), np.random.default_rng(0)
    assert config.vocabulary == VOCABULARY
    shapes = names_and_shapes(config).items()
    flat = {name: rng.normal(0, 0.02, shape).astype(np.float32) for name, shape in shapes}
    weights.save_params(unflatten(flat), str(tmp_path / "base" / "model.safetensors"))
    (tmp_path / "words.model").write_bytes(tiny_tokenizer())
    return tmp_path


def settings(files, **changes):
    return {
        "preset": "dummy",
        "variant": "plain",
        "steps": 1,
        "batch_size": 4,
        "val_fraction": 0,
        "tokenizer": str(files / "words.model"),
        "weights": str(files / "base"),
        "frozen": ["PaliGemma/img/.*"],
        "camera_keys": {"base_0_rgb": synthetic.TOPVIEW},
        "max_token_len": 64,
        **changes,
    }


def digest(dataset, files, **changes):
    config = parse_config("train_policy", settings(files, **changes))
    return plan("train_policy", config, load_inputs("train_policy", {"dataset": dataset.uri}), "r").digest


def change(file: Path) -> None:
    tensors = load_file(file)
    save_file({**tensors, FROZEN: tensors[FROZEN] + 1}, file)


def test_content_counts_and_addresses_and_stated_digests_do_not(dataset, files):
    first = digest(dataset, files)
    shutil.copytree(files / "base", files / "moved")
    shutil.copy(files / "words.model", files / "moved.model")
    file = str(files / "moved" / "model.safetensors")
    moved = {"weights": file, "tokenizer": str(files / "moved.model")}
    assert digest(dataset, files, **moved) == first
    stated = {"weights_sha256": model_digest(file), "tokenizer_sha256": model_digest(moved["tokenizer"])}
    assert digest(dataset, files, **stated) == first
    # What lies beside the weights is not read.
    (files / "base" / "README").write_text("about these weights")
    assert digest(dataset, files) == first
    change(files / "base" / "model.safetensors")
    assert digest(dataset, files) != first
    assert digest(dataset, files, weights="", frozen=[]) != first


def test_the_digest_of_a_step_is_that_of_its_params(dataset, files):
    stated = model_digest(str(OPENPI / "7/params"))
    found = {digest(dataset, files, weights=str(OPENPI / place)) for place in ("7", "7/params")}
    assert found == {digest(dataset, files, weights=str(OPENPI / "7"), weights_sha256=stated)}
    with pytest.raises(DataError, match="these are not the weights of this model"):  # but the right content
        execute(
            "train_policy",
            settings(files, weights=str(OPENPI / "7"), weights_sha256=stated),
            {"dataset": dataset.uri},
            str(files / "runs"),
        )


def test_a_policy_keeps_the_bytes_it_was_trained_from(dataset, files, monkeypatch):
    run = learning.run

    def then_lose_the_tokenizer(*arguments, **options):
        fitted = run(*arguments, **options)
        (files / "words.model").unlink()
        return fitted

    monkeypatch.setattr(learning, "run", then_lose_the_tokenizer)
    made = execute("train_policy", settings(files), {"dataset": dataset.uri}, str(files / "runs"))
    assert storage.read_bytes(made.file("tokenizer.model")) == tiny_tokenizer()
    given = load_file(files / "base" / "model.safetensors")
    trained = load_file(storage.local_path(made.file("model.safetensors")))
    assert trained.keys() == given.keys()
    assert all(np.array_equal(trained[name], given[name]) for name in given if name.startswith("PaliGemma/img/"))
    assert not np.array_equal(trained["action_out_proj/kernel"], given["action_out_proj/kernel"])
    assert made.metrics()["weights_sha256"] == model_digest(str(files / "base" / "model.safetensors"))


@pytest.mark.parametrize("late", [False, True])
def test_weights_that_change_after_planning_are_refused(dataset, files, monkeypatch, late):
    file = files / "base" / "model.safetensors"

    def change_them(learner, *arguments, **options):
        if not late:
            change(file)
        template = learner.template()[1]
        places = jax.tree.map(lambda _: jax.sharding.SingleDeviceSharding(jax.devices()[0]), template)
        learner.frozen(places)
        change(file)
        return learning.Fit(params={}, curves={"train": [], "validation": []})

    monkeypatch.setattr(learning, "run", change_them)
    with pytest.raises(DataError, match="the model's files have the digest"):
        execute("train_policy", settings(files), {"dataset": dataset.uri}, str(files / "runs"))


def test_a_digest_without_weights_is_refused(files):
    with pytest.raises(UsageError, match="weights_sha256 is given, but weights is empty"):
        parse_config("train_policy", settings(files, weights="", weights_sha256="0" * 64))


def test_damaged_updates_are_reported_as_such(files):
    import miniature_pi05 as miniature

    lora = miniature.with_updates(miniature.config())
    flat = {name: np.zeros(shape, np.float32) for name, shape in names_and_shapes(lora).items()}
    lost = next(name for name in flat if "lora_a" in name)
    del flat[lost]
    uri = str(files / "lora.safetensors")
    weights.save_params(unflatten(flat), uri)
    with pytest.raises(DataError, match=rf"1 missing, 0 unexpected(.|\n)*missing: {lost}"):
        weights.load_params(uri, lora, may_lack_updates=True)
