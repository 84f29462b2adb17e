"""Batches of pi0.5: pictures from either frame cache, texts tokenized once, and the rows of one process alone."""

from __future__ import annotations

import socket

import jax
import miniature_pi05 as miniature
import numpy as np
import pytest
import synthetic

from robolift.data.dataset import Dataset
from robolift.data.handover import Connection
from robolift.errors import DataError, UsageError
from robolift.labeling.prompt_formatter import PromptFormatter
from robolift.labeling.prompts import advantage_prompts
from robolift.policy import hosts, learning, sharding
from robolift.policy.assembly import Material
from robolift.policy.pi05.assembly import assemble
from robolift.policy.pi05.config import PRESETS
from robolift.policy.recipe import Recipe
from robolift.stages.stage import execute, load_inputs, parse_config, plan

CONFIG = miniature.config()


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    return miniature.tokenizer(tmp_path_factory.mktemp("words"))


@pytest.fixture
def settings(tokenizer_uri):
    return {
        "preset": "dummy",
        "variant": "plain",
        "batch_size": 4,
        "val_fraction": 0.25,
        "tokenizer": tokenizer_uri,
        "camera_keys": {"base_0_rgb": synthetic.TOPVIEW},
        "max_token_len": 96,
    }


def assembled(dataset, given, frames=None):
    opened = Dataset.open(dataset)
    material = Material(dataset=opened, prompts=advantage_prompts(opened.tasks), labels=None, stats=None, frames=frames)
    return assemble(PRESETS["dummy"](), Recipe(**given), material)


def test_rows_that_read_alike_are_tokenized_once_and_every_row_as_by_itself(words, monkeypatch):
    data = miniature.rows(CONFIG, miniature.recipe(label_dropout=0.5), words)
    asked = []
    original = PromptFormatter.tokens
    monkeypatch.setattr(PromptFormatter, "tokens", lambda *given: asked.append(given[1]) or original(*given))
    batch = data.batch(np.array([3, 5, 3, 3, 5]))
    assert len(asked) == 4
    for place, position in enumerate((3, 5, 3, 3, 5)):
        alone = data.batch(np.array([position]))
        for name in ("tokens", "mask", "bare_tokens", "bare_mask", "images"):
            assert np.array_equal(getattr(batch, name)[place], getattr(alone, name)[0]), name


def test_a_process_prepares_the_rows_of_its_own_devices_alone():
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]).reshape(1, 1), ("batch", "fsdp"))
    assert hosts.own_rows(sharding.batch_sharding(mesh), 6).tolist() == [0, 1, 2, 3, 4, 5]

    class Half:
        """Of a batch over two machines, what lies on the second."""

        def addressable_devices_indices_map(self, shape):
            return {"third": (slice(6, 9),), "second": (slice(3, 6),)} if shape == (9,) else {}

    assert hosts.own_rows(Half(), 9).tolist() == [3, 4, 5, 6, 7, 8]


def test_frames_decoded_by_batch_are_those_of_the_packed_ones_and_the_same_policy(dataset, settings, tmp_path):
    inputs = load_inputs("train_policy", {"dataset": dataset.uri})
    digests, batches = [], []
    for cache in ("packed", "none"):
        given = {**settings, "frame_cache": cache, "decode_workers": 2, "state_width": 12}
        config = parse_config("train_policy", given)
        digests.append(plan("train_policy", config, inputs, str(tmp_path)).digest)
        rows = assembled(dataset, given).rows
        batches.append((*rows.batch(np.array([7, 0, 30])), *rows.held_out()))
        assert rows.formatter.state_dim == 12
    assert digests[0] == digests[1]
    assert all(one.tobytes() == other.tobytes() for one, other in zip(*batches, strict=True))
    assert batches[0][0].any()


def test_the_rows_of_a_step_are_made_alike_in_another_process(dataset, settings):
    for cache in ("packed", "none"):
        data = assembled(dataset, {**settings, "frame_cache": cache, "label_dropout": 0.5}).rows
        recipe = Recipe(**settings, shuffle_block=8, shuffle_window=2)
        fetch = learning.StepRows(data, learning.make_sampler(recipe, data.num_rows), np.array([0, 3]))
        expected = fetch(5)
        assert len(expected.images) == 2
        ours, theirs = socket.socketpair()
        with ours, theirs:
            Connection(ours).send(fetch)
            received = Connection(theirs).receive(writable=False)
            Connection(theirs).send(received(5))
            found = Connection(ours).receive()
        for name in found._fields:
            assert getattr(found, name).tobytes() == getattr(expected, name).tobytes(), name


def test_pictures_come_from_a_frame_cache_that_has_them(dataset, settings, tmp_path, monkeypatch):
    view = {"cameras": [synthetic.TOPVIEW], "size": [28, 28], "padded": True, "format": "raw", "num_workers": 1}
    cache = execute("pack_frames", view, {"dataset": dataset.uri}, str(tmp_path))
    decoded = assembled(dataset, {**settings, "frame_cache": "none"}).rows.batch(np.array([7, 0, 30]))
    monkeypatch.setattr(Dataset, "video", lambda *_, **__: pytest.fail("decoded"))
    monkeypatch.setattr(Dataset, "images", lambda *_, **__: pytest.fail("decoded"))
    for setting in ("packed", "none"):
        read = assembled(dataset, {**settings, "frame_cache": setting}, cache).rows.batch(np.array([7, 0, 30]))
        assert np.array_equal(read.images, decoded.images)


def test_a_state_is_never_cut_and_none_is_not_filled_up(dataset, settings):
    with pytest.raises(DataError, match="a state has 8 numbers"):
        assembled(dataset, {**settings, "state_width": 3})
    with pytest.raises(UsageError, match="state_width is given, but state_keys is empty"):
        parse_config("train_policy", {**settings, "state_width": 3, "state_keys": []})
