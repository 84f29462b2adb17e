"""What identifies a value model with towers: the contents of its first weights and its tokenizer, not their places."""

from __future__ import annotations

import hashlib

import pytest
from tiny_tokenizer import tiny_tokenizer

from robolift.data.dataset import Dataset
from robolift.errors import DataError
from robolift.manifest import Output
from robolift.stages import train_value
from robolift.stages.stage import load_inputs, parse_config, plan
from robolift.value_model import train
from robolift.value_model.checkpoint import Checkpoint
from robolift.value_model.recipe import Recipe


@pytest.fixture
def files(tmp_path):
    (tmp_path / "words.model").write_bytes(tiny_tokenizer(512))
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "model.safetensors").write_bytes(b"first weights")
    return tmp_path


def settings(files, **changes):
    places = {"tokenizer": str(files / "words.model"), "weights": str(files / "weights")}
    return {"preset": "pi05_dummy", "head": "relative", **places, **changes}


def planned(dataset, files, **changes):
    config = parse_config("train_value", settings(files, **changes))
    return config, plan("train_value", config, load_inputs("train_value", {"dataset": dataset.uri}), str(files))


def test_other_contents_at_the_same_addresses_are_another_model(dataset, files):
    digests = {planned(dataset, files)[1].digest}
    (files / "words.model").write_bytes(tiny_tokenizer(512, bos_id=4))
    digests.add(planned(dataset, files)[1].digest)
    (files / "weights" / "model.safetensors").write_bytes(b"other weights")
    digests.add(planned(dataset, files)[1].digest)
    assert len(digests) == 3
    assert planned(dataset, files)[1].digest in digests


def test_what_is_stated_is_not_read_and_the_small_model_has_none(dataset, files):
    stated = {"weights_sha256": "1" * 64, "tokenizer_sha256": "2" * 64}
    assert planned(dataset, files, weights=f"{files}/nothing", **stated)[1].identity == stated
    assert train_value.identity(parse_config("train_value", {})) == {}


def test_a_file_that_changes_after_planning_is_refused_before_training(dataset, files):
    config, found = planned(dataset, files)
    (files / "words.model").write_bytes(tiny_tokenizer(512, bos_id=4))
    output = Output(found)
    with pytest.raises(DataError, match="the tokenizer's file has the SHA-256"):
        train_value.run(config, load_inputs("train_value", {"dataset": dataset.uri}), output)
    output.discard()


def test_a_checkpoint_names_the_contents_that_were_found(dataset, files):
    recipe = Recipe(**settings(files, weights=str(files / "weights" / "model.safetensors")))
    opened = Dataset.open(dataset)
    found = train.describe(recipe, opened, train.prepare(recipe, opened, None))
    document = found.to_dict()
    assert document["tokenizer_sha256"] == hashlib.sha256(tiny_tokenizer(512)).hexdigest()
    assert document["weights_sha256"] == hashlib.sha256(b"first weights").hexdigest()
    assert Checkpoint.from_dict(document).to_dict() == document
    random = train.describe(Recipe(**settings(files, weights="")), opened, train.prepare(recipe, opened, None))
    assert random.weights_sha256 == ""
    # Written before digests and padding were noted.
    del document["tokenizer_sha256"], document["weights_sha256"], document["model"]["padded"]
    old = Checkpoint.from_dict(document)
    assert (old.tokenizer_sha256, old.weights_sha256, old.padded, found.padded) == ("", "", False, True)
