"""A policy that is normalised by statistics made beforehand: which ones it takes, and that it carries them."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil

import numpy as np
import pytest
import synthetic
from small_recordings import SMALL, imported, measured, write

from robolift import storage
from robolift.data.dataset import Dataset
from robolift.errors import DataError, UsageError
from robolift.manifest import Manifest
from robolift.policy import memory, norm_stats
from robolift.policy.checkpoint import load_policy
from robolift.policy.norm_stats import NormStats, VectorStats
from robolift.policy.normalize import Normalizer
from robolift.stages.stage import execute, load_inputs, parse_config, plan

BOTH = [synthetic.STATE, synthetic.ENVIRONMENT_STATE]
BLIND = {
    "variant": "plain",
    "vision": "none",
    "state_keys": BOTH,
    "objective": "regression",
    "steps": 3,
    "batch_size": 16,
    "log_every": 1,
}


def train(dataset: Manifest, root, stats: Manifest | None = None, **config) -> Manifest:
    inputs = {"dataset": dataset.uri, **({"norm_stats": stats.uri} if stats else {})}
    return execute("train_policy", {**BLIND, **config}, inputs, str(root))


def files(policy: Manifest) -> dict[str, bytes]:
    names = storage.read_json(policy.file("files.json"))
    return {name: storage.read_bytes(policy.file(name)) for name in names}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("trained")


@pytest.fixture(scope="module")
def stats(dataset, root) -> Manifest:
    return measured(dataset, root, state_keys=BOTH)


def test_quantiles_measured_beforehand_train_the_very_same_policy(dataset, stats, root):
    without, given = (files(train(dataset, root, made, normalization="quantile")) for made in (None, stats))
    assert given.pop("norm_stats.json") == storage.read_bytes(stats.file("norm_stats.json"))
    assert given == without
    assert "norm_stats.json" not in without


def test_mean_and_deviation_are_the_given_ones(dataset, stats, root):
    spec, _, _ = load_policy(train(dataset, root, stats).uri)
    found = NormStats.from_dict(storage.read_json(stats.file("norm_stats.json")))
    assert np.array_equal(spec.observation.offset, found.state.mean.astype(np.float32))
    assert np.array_equal(spec.action.offset, found.actions.mean.astype(np.float32))
    moves = found.actions.std > 0
    assert np.array_equal(spec.action.scale[moves], found.actions.std[moves].astype(np.float32))
    assert spec.action.scale[~moves].tolist() == [1] * int((~moves).sum()) == [1]  # the third action is always 0
    assert spec.state_dims == (8, 17)


def test_statistics_of_another_dataset_with_the_same_columns_are_taken(dataset, root, tmp_path):
    path = tmp_path / "other"
    synthetic.write_recording(path, episodes=3, frames=12, cameras=(), seed=5)
    other = measured(imported(path, tmp_path), tmp_path, state_keys=BOTH)
    spec, _, _ = load_policy(train(dataset, root, other).uri)
    expected = NormStats.from_dict(storage.read_json(other.file("norm_stats.json")))
    assert np.array_equal(spec.observation.offset, expected.state.mean.astype(np.float32))


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ([synthetic.STATE], r"measured on state observation\.state with 8 numbers; expected observation\.state with 8"),
        (BOTH[::-1], r"measured on state observation\.environment_state with 17 numbers, observation\.state"),
    ],
)
def test_statistics_of_other_columns_are_refused(dataset, root, keys, said):
    with pytest.raises(UsageError, match=said) as refused:
        train(dataset, root, measured(dataset, root, state_keys=keys))
    assert "mend: run compute_norm_stats with the state_keys of train_policy" in str(refused.value)


def test_widths_and_names_must_be_the_dataset_s(dataset, root, tmp_path):
    made = imported(write(tmp_path / "small", SMALL), tmp_path)
    small = measured(made, tmp_path)
    one = {"state_keys": [synthetic.STATE]}
    with pytest.raises(UsageError, match=r"with 2 numbers .*; expected observation\.state with 8 numbers"):
        train(dataset, root, small, **one)
    swapped = imported(write(tmp_path / "swapped", SMALL, names=("grip", "height")), tmp_path)
    with pytest.raises(UsageError, match=r"\['height', 'grip'\]; expected .*\['grip', 'height'\]"):
        train(swapped, tmp_path, small, **one)
    nameless = imported(write(tmp_path / "nameless", SMALL, names=None), tmp_path)
    train(nameless, tmp_path, small, **one)
    train(made, tmp_path, small, **one)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d.pop("actions"), "not norm statistics: KeyError"),
        (lambda d: d["state"].pop("q01"), "not norm statistics: KeyError"),
        (lambda d: d["state"]["std"].pop(), "lists of different lengths"),
        (lambda d: d["state"]["std"].__setitem__(0, float("nan")), "a number is not finite"),
        (lambda d: [values.append(0.0) for values in d["actions"].values()], "actions has 5 numbers"),
    ],
)
def test_a_damaged_file_is_refused(dataset, stats, tmp_path, change, said):
    shutil.copytree(storage.local_path(stats.uri), tmp_path, dirs_exist_ok=True)
    document = json.loads((tmp_path / "norm_stats.json").read_text())
    change(document["norm_stats"])
    (tmp_path / "norm_stats.json").write_text(json.dumps(document))
    copied = dataclasses.replace(stats, uri=str(tmp_path))
    with pytest.raises(DataError, match=said) as refused:
        norm_stats.load(copied, Dataset.open(dataset), BOTH)
    assert "norm_stats.json" in refused.value.where


def test_a_constant_dimension_is_shifted_and_not_scaled():
    stats = VectorStats(
        mean=np.array([2.0, 5.0]), std=np.array([4.0, 0.0]), q01=np.array([-1.0, 5.0]), q99=np.array([3.0, 5.0])
    )
    rows = np.array([[2, 5], [3, 6]], np.float32)
    assert stats.normalizer("mean_std").apply(rows).tolist() == [[0, 0], [0.25, 1]]
    assert stats.normalizer("quantile").apply(rows).tolist() == [[0.5, 0], [1, 1]]
    assert [stats.unscaled(method) for method in ("mean_std", "quantile")] == [[1], [1]]


def test_statistics_and_a_fit_to_the_same_rows_are_one_normaliser():
    rows = np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32)
    wide = rows.astype(np.float64)
    q01, q99 = np.quantile(wide, [0.01, 0.99], axis=0)
    stats = VectorStats(mean=wide.mean(0), std=wide.std(0), q01=q01, q99=q99)
    for method in ("mean_std", "quantile"):
        mine, fitted = stats.normalizer(method), Normalizer.fit(rows, method)
        assert np.array_equal(mine.offset, fitted.offset)
        assert np.array_equal(mine.scale, fitted.scale)


def test_names_count_where_both_have_some():
    column = norm_stats.Column(name="action", dim=2, names=["x", "y"])
    assert column.agrees(norm_stats.Column(name="action", dim=2))
    assert not column.agrees(norm_stats.Column(name="action", dim=2, names=["y", "x"]))
    assert not column.agrees(norm_stats.Column(name="action", dim=3, names=["x", "y"]))


def test_the_memory_fraction_reaches_xla_and_is_no_part_of_the_identity(dataset, root, monkeypatch):
    for name in (memory.FRACTION, memory.NEWER_FRACTION):
        monkeypatch.setenv(name, "0.5")  # so that it is restored afterwards
    loaded = load_inputs("train_policy", {"dataset": dataset.uri})
    planned = [
        plan("train_policy", parse_config("train_policy", {**BLIND, **change}), loaded, str(root))
        for change in ({}, {"memory_fraction": 0.9})
    ]
    assert planned[0].digest == planned[1].digest
    assert "memory_fraction" not in planned[1].config
    memory.reserve(0.9)
    assert os.environ["XLA_PYTHON_CLIENT_MEM_FRACTION"] == "0.9"
    assert "XLA_CLIENT_MEM_FRACTION" not in os.environ  # JAX takes only one of the two
    from jaxlib.xla_client import generate_pjrt_gpu_plugin_options

    assert generate_pjrt_gpu_plugin_options()["memory_fraction"] == 0.9
    for wrong in (0, 1.5):
        with pytest.raises(UsageError, match="memory_fraction"):
            parse_config("train_policy", {"memory_fraction": wrong})


def test_a_run_sets_the_memory_fraction(dataset, tmp_path, monkeypatch):
    monkeypatch.setenv(memory.FRACTION, "0.5")
    train(dataset, tmp_path, steps=1)
    assert os.environ[memory.FRACTION] == "0.5"  # what the user set stays
    train(dataset, tmp_path, steps=2, memory_fraction=0.7)
    assert os.environ[memory.FRACTION] == "0.7"
